//! `#[chare::main]` and `#[chare::test]`: a coroutine that the runtime runs, as `fn main` or as tests.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Attribute, Expr, FnArg, ItemFn, Visibility, parse_quote};

use crate::errors::Errors;
use crate::options::{Pes, Seeds, Simulated, TestOptions};

pub(crate) fn main(options: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    if !options.is_empty() {
        errors.on(
            options,
            "`#[chare::main]` takes no options: they are on the command line (`--pes`, `--device`, ..), or use \
             `chare::Runtime::run`",
        );
    }
    let mut function = read_function(item, "#[chare::main]", &mut errors)?;
    if function.sig.ident != "main" {
        errors.on(&function.sig.ident, "`#[chare::main]` goes on the program's `async fn main`");
    }
    let (attributes, name) = (function.attrs.split_off(0), function.sig.ident.clone());
    let visibility = std::mem::replace(&mut function.vis, Visibility::Inherited);
    // The user's function keeps its name, for the compiler's messages; inside, it hides the outer one.
    let run = quote_spanned!(name.span()=> ::chare::__private::main(::core::env!("CARGO_PKG_NAME"), #name));
    errors.finish(quote! {
        #(#attributes)*
        #visibility fn #name() -> ::std::process::ExitCode {
            #function
            #run
        }
    })
}

pub(crate) fn test(options: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let options = TestOptions::parse(options, &mut errors);
    let mut function = read_function(item, "#[chare::test]", &mut errors)?;
    if let Some(attribute) = function.attrs.iter().find(|attribute| attribute.path().is_ident("test")) {
        errors.on(attribute, "`#[chare::test]` makes a test already: remove `#[test]`");
    }
    let attributes = TestAttributes::take(&mut function.attrs);
    let device = match &options.device {
        Some(device) => quote!(::core::option::Option::Some(#device)),
        None => quote!(::core::option::Option::None),
    };
    let simulated = match &options.simulation {
        Simulated::Maybe => quote!(Maybe),
        Simulated::Seeds(Seeds::Count(count)) => {
            let count = count.base10_digits();
            quote!(Seeds(#count))
        }
        Simulated::Seeds(Seeds::Spec(spec)) => quote!(Seeds(#spec)),
        Simulated::Never => quote!(Never),
    };
    let one_process = options.one_process;
    let how = quote! {
        device: #device,
        simulated: ::chare::__private::Simulated::#simulated,
        one_process: #one_process
    };
    let how = How { how, ends: options.ends };
    let tests = match options.pes {
        Pes::One(pes) => one_test(function, &attributes, pes, &how),
        Pes::Each(counts) => test_per_count(function, &attributes, &counts, &how),
    };
    errors.finish(tests)
}

/// A `#[test]` with the function inside.
fn one_test(mut function: ItemFn, attributes: &TestAttributes, pes: usize, how: &How) -> TokenStream {
    let TestAttributes { of_item, of_test } = attributes;
    let name = function.sig.ident.clone();
    function.vis = Visibility::Inherited;
    let run = quote_spanned!(name.span()=> ::chare::__private::test(&TEST, #name););
    let test = how.constant(pes, &TokenStream::new(), &quote!(#name));
    quote! {
        #(#of_item)*
        #[::core::prelude::v1::test]
        #(#of_test)*
        fn #name() {
            #function
            #test
            #run
        }
    }
}

/// What a test is run with, but for the number of PEs and its name.
struct How {
    how: TokenStream,
    /// The user's function that looks at the report.
    ends: Option<Expr>,
}

impl How {
    /// The constant that says how a test is run. `scope` is what brings the names of the user's module; `path` is the test's name, from its
    /// module on.
    fn constant(&self, pes: usize, scope: &TokenStream, path: &TokenStream) -> TokenStream {
        let How { how, ends } = self;
        let ends = ends.as_ref().map_or(quote!(::core::option::Option::None), |ends| {
            quote! {
                ::core::option::Option::Some({
                    #scope
                    let ends: fn(&::chare::ExitReport) = #ends;
                    ends
                })
            }
        });
        quote! {
            const TEST: ::chare::__private::Test = ::chare::__private::Test {
                pes: #pes,
                #how,
                ends: #ends,
                package: ::core::env!("CARGO_PKG_NAME"),
                path: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#path)),
            };
        }
    }
}

/// The function, and beside it a module of the same name (which is another namespace) with a `#[test]` per count.
fn test_per_count(function: ItemFn, attributes: &TestAttributes, counts: &[usize], how: &How) -> TokenStream {
    let TestAttributes { of_item, of_test } = attributes;
    let name = &function.sig.ident;
    let tests = counts.iter().map(|pes| {
        let test = format_ident!("pes_{pes}", span = name.span());
        let run = quote_spanned!(name.span()=> ::chare::__private::test(&TEST, super::#name););
        let of_module = quote! {
            #[allow(unused_imports)]
            use super::*;
        };
        let how = how.constant(*pes, &of_module, &quote!(#test));
        quote! {
            #[::core::prelude::v1::test]
            #(#of_test)*
            fn #test() {
                #how
                #run
            }
        }
    });
    quote! {
        #(#of_item)*
        #[cfg(test)]
        #function
        #(#of_item)*
        #[cfg(test)]
        mod #name {
            #(#tests)*
        }
    }
}

/// The attributes that are not for the body.
struct TestAttributes {
    /// `#[cfg]`: whether there is a test at all.
    of_item: Vec<Attribute>,
    /// `#[should_panic]`, `#[ignore]`: what the test harness reads.
    of_test: Vec<Attribute>,
}

impl TestAttributes {
    fn take(attributes: &mut Vec<Attribute>) -> TestAttributes {
        let is =
            |attribute: &Attribute, names: &[&str]| names.iter().any(|name| attribute.path().is_ident(name));
        TestAttributes {
            of_item: attributes.extract_if(.., |attribute| is(attribute, &["cfg"])).collect(),
            of_test: attributes
                .extract_if(.., |attribute| is(attribute, &["should_panic", "ignore"]))
                .collect(),
        }
    }
}

/// Reads the function under `attribute`, and gives it the parameter `rt` if it has none.
fn read_function(item: TokenStream, attribute: &str, errors: &mut Errors) -> syn::Result<ItemFn> {
    let expected =
        format!("`{attribute}` goes on a function: `async fn name(rt: Runtime) -> Result<()> {{ .. }}`");
    let mut function: ItemFn = match syn::parse2(item.clone()) {
        Ok(syn::Item::Fn(function)) => function,
        Ok(other) => return Err(syn::Error::new_spanned(other, expected)),
        Err(error) => return Err(error),
    };
    let signature = &mut function.sig;
    if signature.asyncness.is_none() {
        errors.on(signature.fn_token, format!("`{attribute}` runs a coroutine: write `async fn`"));
    }
    let qualifiers = [
        signature.unsafety.map(|token| token.into_token_stream()),
        signature.constness.map(|token| token.into_token_stream()),
        signature.abi.as_ref().map(|abi| abi.into_token_stream()),
    ];
    for qualifier in qualifiers.into_iter().flatten() {
        errors.on(&qualifier, format!("`{attribute}` runs a plain `async fn`: remove `{qualifier}`"));
    }
    if !signature.generics.params.is_empty() {
        errors.on(&signature.generics, format!("`{attribute}` runs one function: it cannot be generic"));
    }
    if signature.inputs.is_empty() {
        signature.inputs.push(parse_quote!(_: ::chare::Runtime));
    } else if let Some(receiver) = signature.receiver() {
        errors.on(receiver, format!("`{attribute}` goes on a free function, which has no `self`"));
    }
    for extra in signature.inputs.iter().skip(1).filter(|input| matches!(input, FnArg::Typed(_))) {
        errors.on(extra, format!("`{attribute}` passes one argument, the runtime: `rt: Runtime`"));
    }
    Ok(function)
}
