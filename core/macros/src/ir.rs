//! A `#[chare]` block as the runtime sees it, after every misuse has been refused.
//!
//! Types are lifted: `Self` in them is already replaced by the chare's type, so that they mean the same outside the
//! `impl` block.

use proc_macro2::Span;
use syn::{Attribute, Expr, ExprClosure, Generics, Ident, Member, Type};

use crate::service::Service;

/// A type that is a chare.
pub(crate) struct Chare {
    /// The last segment of the type's path: what generated names begin with.
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    pub(crate) generics: Generics,
    /// The `#[cfg]`s of the block.
    pub(crate) cfgs: Vec<Attribute>,
    /// The index type, for a type that can be an array element.
    pub(crate) index: Option<Type>,
    /// If it is generic: the types that are in the table of the program.
    pub(crate) types: Vec<Type>,
    pub(crate) keep_after_panic: bool,
    pub(crate) constructor: Constructor,
    /// What runs after a move.
    pub(crate) migrated: Option<Hook>,
    pub(crate) entries: Vec<Entry>,
}

/// How the chare is built.
pub(crate) struct Constructor {
    pub(crate) span: Span,
    pub(crate) is_async: bool,
    pub(crate) inputs: Inputs,
    pub(crate) returns: Returns,
}

/// A method that the runtime calls.
pub(crate) struct Hook {
    pub(crate) span: Span,
    pub(crate) takes_cx: bool,
}

/// A method that can be called by message.
pub(crate) struct Entry {
    pub(crate) name: Ident,
    pub(crate) docs: Vec<Attribute>,
    pub(crate) deprecated: Vec<Attribute>,
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) mode: Mode,
    pub(crate) inputs: Inputs,
    /// What it takes and returns, in the user's words.
    pub(crate) signature: String,
    /// The type that the method returns, as written.
    pub(crate) output: Type,
    pub(crate) returns: Returns,
    pub(crate) service: Service,
    /// Whether its coroutine can be started again.
    pub(crate) is_restartable: bool,
    pub(crate) when: Option<When>,
}

/// What has to hold for a call to run.
pub(crate) enum When {
    /// A closure over the chare.
    State(ExprClosure),
    /// A closure over the chare and every argument.
    Call(ExprClosure),
    /// A field of the chare equals an argument or a field of one.
    Tag {
        equation: Expr,
        of_state: Vec<Member>,
        /// Its position.
        argument: usize,
        of_argument: Vec<Member>,
        /// Where the argument stands in the equation.
        at: Span,
    },
}

/// Whether a method returns its value, or a `Result` with it, which arrives flat.
pub(crate) enum Returns {
    Value,
    /// With the place of the type, for errors about its error type.
    Result(Span),
}

/// How a method interleaves with other messages to its chare.
pub(crate) enum Mode {
    /// Runs to completion.
    Plain,
    /// A coroutine that keeps the chare to itself until it ends.
    Exclusive { receiver: Receiver },
    /// A coroutine that touches the state only between two `.await`s.
    Interleaving,
}

/// How a coroutine borrows its chare.
pub(crate) enum Receiver {
    Shared,
    Unique,
}

/// The parameters of a method without its receiver.
#[derive(Default)]
pub(crate) struct Inputs {
    /// The first one is `&Cx<Self>`.
    pub(crate) takes_cx: bool,
    pub(crate) args: Vec<Arg>,
}

/// An argument that travels in the message.
pub(crate) struct Arg {
    /// The user's name for it; a made-up one where the parameter is a pattern.
    pub(crate) name: Ident,
    pub(crate) ty: Type,
}
