//! What stands in the parentheses of `#[chare(..)]`, `#[entry(..)]` and `#[chare::test(..)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Ident, LitInt, LitStr, Meta, Token, Type, bracketed, parenthesized, token};

use crate::errors::Errors;
use crate::service::{self, Service};
use crate::when::{self, Written};

/// The options of `#[chare]`.
#[derive(Default)]
pub(crate) struct ChareOptions {
    pub(crate) index: Option<Type>,
    pub(crate) keep_after_panic: bool,
    /// Of a generic chare: those that other processes know.
    pub(crate) types: Vec<Type>,
}

impl ChareOptions {
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> ChareOptions {
        let mut options = ChareOptions::default();
        let mut seen = Vec::new();
        let known = |name: &Ident, input: ParseStream<'_>, errors: &mut Errors| {
            match name.to_string().as_str() {
                "index" => {
                    if !input.peek(Token![=]) {
                        errors.on(name, "`index` needs the type of an element's index: `index = usize`");
                        return skip_value(input);
                    }
                    input.parse::<Token![=]>()?;
                    options.index = Some(input.parse()?);
                }
                "keep_after_panic" => {
                    if input.peek(Token![=]) || input.peek(token::Paren) {
                        errors.on(name, "`keep_after_panic` takes no value: writing it switches it on");
                        return skip_value(input);
                    }
                    options.keep_after_panic = true;
                }
                "types" => {
                    if !input.peek(Token![=]) || !input.peek2(token::Bracket) {
                        errors.on(name, "`types` needs a list of types: `types = [Block<f32>, Block<f64>]`");
                        if input.parse::<Option<Token![=]>>()?.is_some() {
                            input.parse::<Type>()?;
                        }
                        return Ok(());
                    }
                    input.parse::<Token![=]>()?;
                    let list;
                    bracketed!(list in input);
                    let types = Punctuated::<Type, Token![,]>::parse_terminated(&list)?;
                    options.types = types.into_iter().collect();
                }
                _ => {
                    errors.on(
                        name,
                        format!(
                            "unknown option `{name}`: `#[chare]` takes `index = <type>`, `types = [<type>, ..]` and \
                             `keep_after_panic`"
                        ),
                    );
                    return skip_value(input);
                }
            }
            Ok(())
        };
        each_option(tokens, &mut seen, errors, known);
        options
    }
}

/// The options of one `#[entry]`.
#[derive(Default)]
pub(crate) struct EntryOptions {
    pub(crate) service: Service,
    pub(crate) when: Option<Written>,
    /// Where it says that its coroutine can be started again.
    pub(crate) restart: Option<Ident>,
}

pub(crate) fn parse_entry(attribute: &Attribute, errors: &mut Errors) -> EntryOptions {
    let mut options = EntryOptions::default();
    let tokens = match &attribute.meta {
        Meta::Path(_) => return options,
        Meta::List(list) => list.tokens.clone(),
        Meta::NameValue(_) => {
            errors.on(attribute, "`#[entry]` takes no value: write `#[entry]`");
            return options;
        }
    };
    each_option(tokens, &mut Vec::new(), errors, |name, input, errors| {
        if service::OPTIONS.iter().any(|option| name == option) {
            return options.service.read(name, input, errors);
        }
        if name == "when" {
            options.when = when::parse(name, input, errors)?;
            return Ok(());
        }
        if name == "restart" {
            options.restart = Some(name.clone());
            return Ok(());
        }
        errors.on(
            name,
            format!(
                "unknown option `{name}`: `#[entry]` takes `expedited`, `priority = <integer>`, `inline`, `local`, \
                 `restart` and `when = ..`"
            ),
        );
        skip_value(input)
    });
    options
}

/// The options of `#[chare::test]`.
pub(crate) struct TestOptions {
    pub(crate) pes: Pes,
    pub(crate) device: Option<LitStr>,
    pub(crate) simulation: Simulated,
    /// It is not spread over processes.
    pub(crate) one_process: bool,
    /// The function that looks at how a run has ended.
    pub(crate) ends: Option<Expr>,
}

/// Whether a test is simulated.
pub(crate) enum Simulated {
    /// If the environment says so.
    Maybe,
    /// By these seeds.
    Seeds(Seeds),
    /// Never, for a reason that stands there to be read.
    Never,
}

/// How many seeds, and what goes with each.
pub(crate) enum Seeds {
    Count(LitInt),
    Spec(LitStr),
}

/// How many PEs a test runs on.
pub(crate) enum Pes {
    One(usize),
    /// One test for each.
    Each(Vec<usize>),
}

impl TestOptions {
    const DEFAULT_PES: usize = 2;

    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> TestOptions {
        let mut options = TestOptions {
            pes: Pes::One(Self::DEFAULT_PES),
            device: None,
            simulation: Simulated::Maybe,
            one_process: false,
            ends: None,
        };
        each_option(tokens, &mut Vec::new(), errors, |name, input, errors| {
            match name.to_string().as_str() {
                "pes" if input.peek(Token![=]) => {
                    input.parse::<Token![=]>()?;
                    options.pes = parse_pes(input, errors)?;
                }
                "pes" => {
                    errors
                        .on(name, "`pes` needs a number of PEs or a list of them: `pes = 4`, `pes = [1, 4]`");
                    return skip_value(input);
                }
                "device" if input.peek(Token![=]) && input.peek2(LitStr) => {
                    input.parse::<Token![=]>()?;
                    options.device = Some(input.parse()?);
                }
                "device" => {
                    errors.on(
                        name,
                        "`device` needs a string, in the words of the command line: `device = \"host:2\"`",
                    );
                    return skip_value(input);
                }
                "seeds" | "unsimulated" => {
                    if !matches!(options.simulation, Simulated::Maybe) {
                        errors.on(
                            name,
                            "`seeds` simulates the test, and `unsimulated` keeps it from that: remove one of them",
                        );
                    }
                    return parse_simulated(name, input, &mut options.simulation, errors);
                }
                "one_process" if input.peek(Token![=]) && input.peek2(LitStr) => {
                    input.parse::<Token![=]>()?;
                    expect_reason(&input.parse()?, "say why it cannot be spread over processes", errors);
                    options.one_process = true;
                }
                "one_process" => {
                    errors.on(name, "`one_process` needs the reason: `one_process = \"it shares a static\"`");
                    return skip_value(input);
                }
                "ends" if input.peek(Token![=]) => {
                    input.parse::<Token![=]>()?;
                    options.ends = Some(input.parse()?);
                }
                "ends" => {
                    errors.on(
                        name,
                        "`ends` needs a function that looks at the report: `ends = |report| assert_eq!(report.code(), 3)`",
                    );
                    return skip_value(input);
                }
                _ => {
                    errors.on(
                        name,
                        format!(
                            "unknown option `{name}`: `#[chare::test]` takes `pes = ..`, `device = \"..\"`, `seeds = ..`, \
                             `unsimulated = \"why\"`, `one_process = \"why\"` and `ends = <function>`"
                        ),
                    );
                    return skip_value(input);
                }
            }
            Ok(())
        });
        options
    }
}

fn parse_simulated(
    name: &Ident,
    input: ParseStream<'_>,
    simulation: &mut Simulated,
    errors: &mut Errors,
) -> syn::Result<()> {
    let is_count = name == "seeds" && input.peek2(LitInt);
    if !input.peek(Token![=]) || !(is_count || input.peek2(LitStr)) {
        errors.on(
            name,
            match name == "seeds" {
                true => "`seeds` needs a number, or a string with more: `seeds = 200`, `seeds = \"200:processes=4\"`",
                false => "`unsimulated` needs the reason: `unsimulated = \"it starts a thread\"`",
            },
        );
        return skip_value(input);
    }
    input.parse::<Token![=]>()?;
    *simulation = if is_count {
        let count: LitInt = input.parse()?;
        if !count.base10_parse::<u64>().is_ok_and(|count| count > 0) {
            errors.on(&count, "this simulates nothing: give at least one seed");
        }
        Simulated::Seeds(Seeds::Count(count))
    } else if name == "seeds" {
        Simulated::Seeds(Seeds::Spec(input.parse()?))
    } else {
        expect_reason(&input.parse()?, "say why it cannot be simulated", errors);
        Simulated::Never
    };
    Ok(())
}

fn expect_reason(reason: &LitStr, request: &str, errors: &mut Errors) {
    if reason.value().trim().is_empty() {
        errors.on(reason, request);
    }
}

fn parse_pes(input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<Pes> {
    if !input.peek(token::Bracket) {
        return Ok(Pes::One(parse_pe_count(input, errors)?));
    }
    let list;
    let brackets = bracketed!(list in input);
    let mut counts = Vec::new();
    while !list.is_empty() {
        let span = list.span();
        let count = parse_pe_count(&list, errors)?;
        if counts.contains(&count) {
            errors.at(span, format!("{count} PEs stand twice in this list"));
        } else {
            counts.push(count);
        }
        if !list.is_empty() {
            list.parse::<Token![,]>()?;
        }
    }
    if counts.is_empty() {
        errors.at(brackets.span.join(), "this list makes no test at all: name at least one number of PEs");
    }
    Ok(Pes::Each(counts))
}

fn parse_pe_count(input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<usize> {
    let number: LitInt = input
        .parse()
        .map_err(|error| syn::Error::new(error.span(), "expected a number of PEs, such as `4`"))?;
    let count = number.base10_parse()?;
    if count == 0 {
        errors.on(number, "a runtime has at least one PE");
        return Ok(1);
    }
    Ok(count)
}

/// Reads `name ..` separated by commas; `option` reads what stands after one name. An option given twice and tokens
/// that are no list of options are reported here.
fn each_option(
    tokens: TokenStream,
    seen: &mut Vec<Ident>,
    errors: &mut Errors,
    mut option: impl FnMut(&Ident, ParseStream<'_>, &mut Errors) -> syn::Result<()>,
) {
    let list = |input: ParseStream<'_>| {
        while !input.is_empty() {
            let name = input.call(Ident::parse_any)?;
            if seen.contains(&name) {
                errors.on(&name, format!("the option `{name}` is given twice: leave one of them"));
            }
            option(&name, input, errors)?;
            seen.push(name);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    };
    if let Err(error) = list.parse2(tokens) {
        errors.push(error);
    }
}

/// Passes over `= ..` or `(..)` after a name that means nothing here.
pub(crate) fn skip_value(input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        Expr::parse(input)?;
    } else if input.peek(token::Paren) {
        let inner;
        parenthesized!(inner in input);
        inner.parse::<TokenStream>()?;
    }
    Ok(())
}
