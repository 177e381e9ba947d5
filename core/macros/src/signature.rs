//! The rules for what `new` and an entry method take and return.

use proc_macro2::Span;
use quote::{ToTokens, format_ident, quote};
use syn::spanned::Spanned;
use syn::{FnArg, GenericParam, Ident, Pat, PatType, ReturnType, Signature, Type, parse_quote};

use crate::errors::Errors;
use crate::ir::{Arg, Inputs, Mode, Receiver, Returns};
use crate::types::{ReplaceSelf, Unsendable, is_named, is_self, peel, unsendable, wraps_self};

/// Whose parameters are read, in messages.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Method {
    New,
    Entry,
}

impl Method {
    fn plural(self) -> &'static str {
        match self {
            Method::New => "constructors",
            Method::Entry => "entry methods",
        }
    }

    fn argument(self) -> Travels {
        match self {
            Method::New => Travels::Init,
            Method::Entry => Travels::Argument,
        }
    }
}

/// Refuses what no method that is called by message can be: `unsafe`, `extern`, `const`, generic, variadic.
pub(crate) fn check_qualifiers(signature: &Signature, method: Method, errors: &mut Errors) {
    let who = method.plural();
    if let Some(unsafety) = &signature.unsafety {
        errors.on(
            unsafety,
            format!(
                "{who} are called by message, so no caller can keep a safety contract: make it safe, and check the \
                 arguments inside"
            ),
        );
    }
    if let Some(abi) = &signature.abi {
        errors.on(abi, format!("{who} are called by the runtime, as Rust functions: remove `extern`"));
    }
    if let Some(constness) = &signature.constness {
        errors.on(constness, format!("{who} run when a message arrives: remove `const`"));
    }
    for parameter in &signature.generics.params {
        let (GenericParam::Type(_) | GenericParam::Const(_)) = parameter else {
            continue;
        };
        errors.on(
            parameter,
            format!(
                "{who} are called by message, so they cannot be generic: make the chare's type generic instead, as \
                 in `impl<T: Send + 'static> MyType<T>`"
            ),
        );
    }
    if let Some(clause) = &signature.generics.where_clause {
        errors.on(clause, format!("{who} have no bounds of their own: write them on the `impl` block"));
    }
    if let Some(variadic) = &signature.variadic {
        errors.on(variadic, format!("{who} take a fixed number of arguments"));
    }
}

/// Reads the receiver of an entry method: how it interleaves, and the parameters after it.
///
/// `None` when there is no usable receiver; the error is recorded.
pub(crate) fn entry_receiver<'a>(
    signature: &'a Signature,
    chare: &Type,
    errors: &mut Errors,
) -> Option<(Mode, Vec<&'a PatType>)> {
    let mut inputs = signature.inputs.iter();
    let mode = match inputs.next() {
        Some(FnArg::Receiver(receiver)) => self_receiver(receiver, signature.asyncness.is_some(), errors)?,
        Some(FnArg::Typed(first)) => this_receiver(first, signature, chare, errors)?,
        None => {
            missing_receiver(signature, signature.paren_token.span.join(), errors);
            return None;
        }
    };
    let params: Vec<&PatType> = inputs.filter_map(typed).collect();
    let mut usable = true;
    for param in &params {
        if is_this(&param.ty) {
            usable = false;
            errors.on(
                &param.ty,
                match mode {
                    Mode::Interleaving => "a second `This<Self>`: one is enough",
                    _ => {
                        "an entry method borrows its chare with `self` or reaches it through `This<Self>`, not both: \
                         keep `self` to have the chare to itself, or only `this: This<Self>` to let other messages in \
                         at each `.await`"
                    }
                },
            );
        }
    }
    usable.then_some((mode, params))
}

fn self_receiver(receiver: &syn::Receiver, is_async: bool, errors: &mut Errors) -> Option<Mode> {
    let is_unique = match (&receiver.colon_token, peel(&receiver.ty)) {
        (None, _) if receiver.reference.is_some() => receiver.mutability.is_some(),
        (Some(_), Type::Reference(reference)) if is_plain_self(&reference.elem) => {
            reference.mutability.is_some()
        }
        _ => {
            errors.on(
                receiver,
                "an entry method borrows its chare, which stays with the runtime: take `&mut self` or `&self`",
            );
            return None;
        }
    };
    Some(match (is_async, is_unique) {
        (false, _) => Mode::Plain,
        (true, false) => Mode::Exclusive { receiver: Receiver::Shared },
        (true, true) => Mode::Exclusive { receiver: Receiver::Unique },
    })
}

fn is_plain_self(ty: &Type) -> bool {
    matches!(peel(ty), Type::Path(path) if path.path.is_ident("Self"))
}

fn this_receiver(first: &PatType, signature: &Signature, chare: &Type, errors: &mut Errors) -> Option<Mode> {
    if !is_this(&first.ty) {
        let later = signature.inputs.iter().filter_map(typed).find(|param| is_this(&param.ty));
        match later {
            Some(this) => errors.on(this, "`this: This<Self>` stands for `self`: move it to the front"),
            None => missing_receiver(signature, signature.ident.span(), errors),
        }
        return None;
    }
    if !wraps_self(&first.ty, "This", chare) {
        errors.on(
            &first.ty,
            "an interleaving coroutine takes its own chare by value: write `this: This<Self>`",
        );
        return None;
    }
    if signature.asyncness.is_none() {
        errors.on(
            &first.ty,
            "`This<Self>` is for coroutines, which suspend: write `async fn`, or take `&mut self` in a method that \
             runs to completion",
        );
        return None;
    }
    Some(Mode::Interleaving)
}

fn missing_receiver(signature: &Signature, span: Span, errors: &mut Errors) {
    let this = if signature.asyncness.is_some() { " or `this: This<Self>`" } else { "" };
    errors.at(
        span,
        format!("an entry method needs a receiver, the chare that it is called on: take `&mut self` or `&self`{this}"),
    );
}

/// Refuses a constructor that takes `self`, and gives its parameters.
pub(crate) fn new_params<'a>(signature: &'a Signature, errors: &mut Errors) -> Vec<&'a PatType> {
    if let Some(receiver) = signature.receiver() {
        errors.on(receiver, "`new` makes the chare, so there is no `self` yet: remove it");
    }
    let params: Vec<_> = signature.inputs.iter().filter_map(typed).collect();
    for param in &params {
        if is_this(&param.ty) {
            errors.on(
                &param.ty,
                "`new` makes the chare, so there is no `This<Self>` yet: take `cx: &Cx<Self>`",
            );
        }
    }
    params
}

fn typed(input: &FnArg) -> Option<&PatType> {
    match input {
        FnArg::Typed(param) => Some(param),
        FnArg::Receiver(_) => None,
    }
}

fn is_this(ty: &Type) -> bool {
    match peel(ty) {
        Type::Reference(reference) => is_named(&reference.elem, "This"),
        other => is_named(other, "This"),
    }
}

pub(crate) fn is_cx(ty: &Type) -> bool {
    match peel(ty) {
        Type::Reference(reference) => is_named(&reference.elem, "Cx"),
        other => is_named(other, "Cx"),
    }
}

/// Reads the parameters after the receiver: `cx` first or nowhere, then owned arguments.
pub(crate) fn inputs(
    params: &[&PatType],
    method: Method,
    mode: Option<&Mode>,
    chare: &Type,
    errors: &mut Errors,
) -> Inputs {
    let mut inputs = Inputs::default();
    for (position, param) in params.iter().enumerate() {
        if is_cx(&param.ty) {
            inputs.takes_cx = true;
            check_cx(param, position, method, mode, chare, errors);
        } else {
            check_owned(&param.ty, method.argument(), errors);
            let name = arg_name(&param.pat, position, params);
            inputs.args.push(Arg { name, ty: ReplaceSelf(chare).lifted(&param.ty) });
        }
    }
    inputs
}

fn check_cx(
    param: &PatType,
    position: usize,
    method: Method,
    mode: Option<&Mode>,
    chare: &Type,
    errors: &mut Errors,
) {
    let ty = &param.ty;
    if matches!(mode, Some(Mode::Interleaving)) {
        return errors.on(ty, "an interleaving coroutine has its context in `this`: remove this parameter");
    }
    match peel(ty) {
        Type::Reference(reference) if reference.mutability.is_some() => {
            errors.on(ty, "the context is shared, not changed: write `cx: &Cx<Self>`");
        }
        Type::Reference(reference) if wraps_self(&reference.elem, "Cx", chare) => {}
        _ => errors.on(ty, "the context is that of this chare, by reference: write `cx: &Cx<Self>`"),
    }
    if position > 0 {
        errors.on(
            param,
            match method {
                Method::New => "the context comes first: move `cx: &Cx<Self>` before the arguments",
                Method::Entry => {
                    "the context comes right after `self`: move `cx: &Cx<Self>` before the arguments"
                }
            },
        );
    }
}

/// The user's name for a parameter, or `arg<position>` for a pattern.
fn arg_name(pattern: &Pat, position: usize, params: &[&PatType]) -> Ident {
    let ident = |pattern: &Pat| match pattern {
        Pat::Ident(name) if name.subpat.is_none() => Some(name.ident.clone()),
        _ => None,
    };
    ident(pattern).unwrap_or_else(|| {
        let taken: Vec<Ident> = params.iter().filter_map(|param| ident(&param.pat)).collect();
        let mut name = format_ident!("arg{position}");
        while taken.contains(&name) {
            name = format_ident!("{name}_");
        }
        name
    })
}

/// Parameters and return type as text, for the table of the program.
pub(crate) fn in_words(inputs: impl ToTokens, output: &ReturnType) -> String {
    let inputs = inputs.into_token_stream();
    quote!((#inputs) #output).to_string()
}

/// What a type is for, where it must be able to travel.
#[derive(Clone, Copy)]
pub(crate) enum Travels {
    Init,
    Argument,
    Result,
}

/// Refuses a type that borrows or has no name.
pub(crate) fn check_owned(ty: &Type, role: Travels, errors: &mut Errors) {
    let what = match role {
        Travels::Init => "constructor arguments",
        Travels::Argument => "entry arguments",
        Travels::Result => "entry results",
    };
    let why = format!("{what} are owned, as they travel to other PEs and processes");
    match unsendable(ty) {
        None => {}
        Some(Unsendable::Reference(reference)) => {
            let instead = match (peel(&reference.elem), role) {
                (inner, _) if is_named(inner, "str") => "use `String`",
                (Type::TraitObject(_), _) => "use a type that implements the trait, or an enum of such types",
                (Type::Slice(_), Travels::Argument) => {
                    "use `Vec<T>`, or `chare::Shared<T>` for what many elements read"
                }
                (Type::Slice(_), _) => "use `Vec<T>`",
                (_, Travels::Argument) => {
                    "take the value itself, or `chare::Shared<T>` for what many elements read"
                }
                (_, Travels::Init) => "take the value itself",
                (_, Travels::Result) => "return the value itself",
            };
            errors.on(reference, format!("{why}: {instead}"));
        }
        Some(Unsendable::Lifetime(lifetime)) => {
            errors.on(lifetime, format!("{why}: use a type that borrows nothing"));
        }
        Some(Unsendable::Impl(ty)) => {
            errors.on(
                ty,
                format!("{what} have one known type, which a message is encoded from: name the type"),
            );
        }
    }
}

/// Reads what an entry method returns: the type, lifted, and how it gives its value.
pub(crate) fn entry_return(output: &ReturnType, chare: &Type, errors: &mut Errors) -> (Type, Returns) {
    match output {
        ReturnType::Default => (parse_quote!(()), Returns::Value),
        ReturnType::Type(_, ty) => {
            check_owned(ty, Travels::Result, errors);
            let returns = if is_named(ty, "Result") { Returns::Result(ty.span()) } else { Returns::Value };
            (ReplaceSelf(chare).lifted(ty), returns)
        }
    }
}

/// Reads what `new` returns: `Self` or `Result<Self, E>`.
pub(crate) fn new_return(signature: &Signature, chare: &Type, errors: &mut Errors) -> Returns {
    let expected = "`new` makes the chare: let it return `Self` or `Result<Self, E>`";
    match &signature.output {
        ReturnType::Default => errors.at(signature.ident.span(), expected),
        ReturnType::Type(_, ty) if wraps_self(ty, "Result", chare) => return Returns::Result(ty.span()),
        ReturnType::Type(_, ty) if is_self(ty, chare) => {}
        ReturnType::Type(_, ty) => errors.on(ty, expected),
    }
    Returns::Value
}
