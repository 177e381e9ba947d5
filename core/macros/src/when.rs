//! The condition of an entry method, `when = |s: &Self, ..| ..` or `when(self.tag == argument)`: what it may look at.
//!
//! How it is written says what a look costs, so nothing is guessed: a closure over the chare, a closure over the chare and
//! every argument, or an equation of two places.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{BinOp, Expr, ExprBinary, ExprClosure, Ident, Member, Pat, Token, Type, parenthesized, token};

use crate::errors::Errors;
use crate::ir::{Arg, Inputs, When};
use crate::types::{is_named, is_self, peel};

const FORMS: &str = "`when = |s: &Self| s.ready`, `when = |s: &Self, step: &u32| *step <= s.step`, or, looked up by hash, \
                     `when(self.step == step)`";

/// A condition as it is written.
pub(crate) enum Written {
    Closure(ExprClosure),
    Equation(Expr),
}

/// Reads what stands after `when`. `None` if it is refused.
pub(crate) fn parse(
    name: &Ident,
    input: ParseStream<'_>,
    errors: &mut Errors,
) -> syn::Result<Option<Written>> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        return Ok(match input.parse()? {
            Expr::Closure(closure) => Some(Written::Closure(closure)),
            other => {
                errors.on(&other, format!("a condition is written as a closure: {FORMS}"));
                None
            }
        });
    }
    if input.peek(token::Paren) {
        let inner;
        parenthesized!(inner in input);
        if !inner.is_empty() {
            let equation = inner.parse()?;
            return if inner.is_empty() {
                Ok(Some(Written::Equation(equation)))
            } else {
                Err(inner.error("expected `)`"))
            };
        }
    }
    errors.on(name, format!("`when` needs a condition: {FORMS}"));
    Ok(None)
}

/// Reads a condition of a method with these inputs.
pub(crate) fn read(written: &Written, inputs: &Inputs, chare: &Type, errors: &mut Errors) -> Option<When> {
    match written {
        Written::Closure(closure) => read_closure(closure, inputs, chare, errors),
        Written::Equation(equation) => read_equation(equation, inputs, errors),
    }
}

fn read_closure(closure: &ExprClosure, inputs: &Inputs, chare: &Type, errors: &mut Errors) -> Option<When> {
    let before = errors.count();
    if let Some(asyncness) = &closure.asyncness {
        errors.on(asyncness, "a condition is looked at on the spot, so it cannot wait: remove `async`");
    }
    let args = &inputs.args;
    let count = closure.inputs.len();
    if count != 1 && count != 1 + args.len() {
        errors.at(closure.or1_token.span(), wrong_arity(count, args));
        return None;
    }
    for (position, parameter) in closure.inputs.iter().enumerate() {
        check_parameter(parameter, position, args, chare, errors);
    }
    if errors.count() > before {
        return None;
    }
    Some(if count == 1 { When::State(closure.clone()) } else { When::Call(closure.clone()) })
}

fn wrong_arity(count: usize, args: &[Arg]) -> String {
    let all = args.iter().map(|Arg { name, ty }| format!(", {name}: &{}", quote!(#ty)));
    let all: String = all.collect();
    let takes = if count == 1 { "1 parameter".to_owned() } else { format!("{count} parameters") };
    let or_all = match args {
        [] => String::new(),
        _ => format!(", or that and every argument by reference, `|s: &Self{all}| ..`"),
    };
    format!("this condition takes {takes}: it takes the chare alone, `|s: &Self| ..`{or_all}")
}

/// The `position`-th parameter of a closure: the chare, then the arguments in their order.
fn check_parameter(parameter: &Pat, position: usize, args: &[Arg], chare: &Type, errors: &mut Errors) {
    let (pattern, ty) = match parameter {
        Pat::Type(typed) => (&*typed.pat, Some(&*typed.ty)),
        other => (other, None),
    };
    if let Some(ty) = ty {
        let target = match peel(ty) {
            Type::Reference(reference) if reference.mutability.is_none() => Some(&*reference.elem),
            Type::Infer(_) => None,
            _ => {
                let what = if position == 0 { "the chare" } else { "the arguments" };
                errors.on(ty, format!("a condition only looks at {what}: take `&{}`", bare(ty)));
                return;
            }
        };
        match target {
            Some(target) if is_named(target, "Cx") => {
                return errors.on(ty, "a condition has no context: it takes the chare and the arguments");
            }
            Some(target) if position == 0 && !is_self(target, chare) && !matches!(target, Type::Infer(_)) => {
                return errors.on(ty, "a condition takes the chare first: `|s: &Self, ..| ..`");
            }
            _ => {}
        }
    }
    let Pat::Ident(named) = pattern else { return };
    let is_of = |arg: &Arg| same_name(&arg.name, &named.ident);
    if let Some(meant) = args.iter().position(is_of)
        && meant + 1 != position
    {
        let here = match position.checked_sub(1) {
            Some(place) => format!("the argument `{}`", args[place].name),
            None => "the chare".to_owned(),
        };
        errors.on(named, format!("`{}` is an argument, but what stands here is {here}", named.ident));
    }
}

/// A type without the reference that it is.
fn bare(ty: &Type) -> String {
    match peel(ty) {
        Type::Reference(reference) => reference.elem.to_token_stream().to_string(),
        other => other.to_token_stream().to_string(),
    }
}

/// Whether two names are the same, but for underscores before them.
fn same_name(a: &Ident, b: &Ident) -> bool {
    let bare = |name: &Ident| name.unraw().to_string().trim_start_matches('_').to_owned();
    !bare(a).is_empty() && bare(a) == bare(b)
}

fn read_equation(equation: &Expr, inputs: &Inputs, errors: &mut Errors) -> Option<When> {
    let Expr::Binary(ExprBinary { left, op: BinOp::Eq(_), right, .. }) = peel_expr(equation) else {
        errors.on(
            equation,
            format!("`when(..)` says which field equals which argument; a condition is {FORMS}"),
        );
        return None;
    };
    let (left, right) = (place(left, errors)?, place(right, errors)?);
    let (state, argument) = match (left.is_self(), right.is_self()) {
        (true, false) => (left, right),
        (false, true) => (right, left),
        (true, true) => {
            errors.on(
                equation,
                "both sides are of the chare, so no argument is looked at: write `when = |s: &Self| ..`",
            );
            return None;
        }
        (false, false) => {
            errors.on(equation, "one side is a field of the chare: write `when(self.step == step)`");
            return None;
        }
    };
    if state.members.is_empty() {
        errors.at(state.span, "an argument is compared with a field of the chare: write `self.step`");
        return None;
    }
    // A method whose condition has said all about an argument names it `_step`.
    let position = inputs.args.iter().position(|arg| same_name(&arg.name, &argument.base));
    let Some(argument_position) = position else {
        let names: Vec<_> = inputs.args.iter().map(|arg| format!("`{}`", arg.name)).collect();
        let there = match names.as_slice() {
            [] => "this method has no arguments".to_owned(),
            [one] => format!("the argument of this method is {one}"),
            _ => format!("the arguments of this method are {}", names.join(", ")),
        };
        errors.at(argument.span, format!("there is no argument `{}`: {there}", argument.base));
        return None;
    };
    Some(When::Tag {
        equation: equation.clone(),
        of_state: state.members,
        argument: argument_position,
        of_argument: argument.members,
        at: argument.span,
    })
}

/// A variable and fields of it, `self.now.step`.
struct Place {
    base: Ident,
    members: Vec<Member>,
    span: Span,
}

impl Place {
    fn is_self(&self) -> bool {
        self.base == "self"
    }
}

fn place(side: &Expr, errors: &mut Errors) -> Option<Place> {
    let mut members = Vec::new();
    let mut rest = peel_expr(side);
    loop {
        match rest {
            Expr::Field(field) => {
                members.push(field.member.clone());
                rest = peel_expr(&field.base);
            }
            Expr::Path(path) if path.qself.is_none() && path.path.get_ident().is_some() => {
                members.reverse();
                let base = path.path.get_ident().expect("just seen").clone();
                return Some(Place { span: base.span(), base, members });
            }
            _ => {
                errors.on(
                    side,
                    "a side of `when(..)` is a field of `self`, an argument or a field of one; for anything else write \
                     a closure, `when = |s: &Self, ..| ..`",
                );
                return None;
            }
        }
    }
}

/// The expression without the invisible groups and the parentheses around it.
fn peel_expr(expr: &Expr) -> &Expr {
    match expr {
        Expr::Group(group) => peel_expr(&group.expr),
        Expr::Paren(paren) => peel_expr(&paren.expr),
        other => other,
    }
}

/// The source of a condition, for reports: a closure without its parameters.
pub(crate) fn source(when: &When) -> String {
    let mut text = String::new();
    match when {
        When::State(closure) | When::Call(closure) => {
            write(closure.body.to_token_stream(), &mut None, &mut text)
        }
        When::Tag { equation, .. } => write(equation.to_token_stream(), &mut None, &mut text),
    }
    text
}

/// Where a token begins or ends: line and column.
type Position = (usize, usize);

/// Writes tokens with a space wherever there is room between them in the source, `end` being where the last one ended.
fn write(tokens: TokenStream, end: &mut Option<Position>, text: &mut String) {
    let token = |span: Span, token: &str, text: &mut String, end: &mut Option<Position>| {
        let span = span.unwrap();
        if end.is_some_and(|end| end != (span.start().line(), span.start().column())) {
            text.push(' ');
        }
        *text += token;
        *end = Some((span.end().line(), span.end().column()));
    };
    for tree in tokens {
        match tree {
            TokenTree::Group(group) => {
                let delimiters = match group.delimiter() {
                    Delimiter::Parenthesis => Some(("(", ")")),
                    Delimiter::Bracket => Some(("[", "]")),
                    Delimiter::Brace => Some(("{", "}")),
                    Delimiter::None => None,
                };
                if let Some((open, _)) = delimiters {
                    token(group.span_open(), open, text, end);
                }
                write(group.stream(), end, text);
                if let Some((_, close)) = delimiters {
                    token(group.span_close(), close, text, end);
                }
            }
            other => token(other.span(), &other.to_string(), text, end),
        }
    }
}
