//! `remote!` and `#[chare::remote]`: code that is sent to a chare.
//!
//! Either way a type is made that stands for the code, and a function of one shape: the chare, its context, and the
//! arguments as one value. A closure stands twice in what is made of it: where it was written, and in a constant, which the table of the
//! program refers to, so that other processes find it (`chare::remote` says why). So the compiler refuses whatever captures, at what it
//! captures, and what another process could not know, the parameters of a generic function around it.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ExprClosure, FnArg, Ident, ItemFn, Pat, PatType, Path, ReturnType, Type, TypeReference};

use crate::codegen;
use crate::errors::Errors;
use crate::signature::{self, Travels};
use crate::types::{is_named, peel};
use crate::wire;

const FORM: &str = "`remote!` takes a closure, `remote!(|state: &mut MyChare, n: u64| ..)`, or the name of a function with \
                    `#[chare::remote]`";

/// The parameters of remote code.
struct Params<'a> {
    chare: &'a TypeReference,
    takes_cx: bool,
    args: Vec<&'a Type>,
}

/// What `remote!` makes of `code`.
pub(crate) fn code(code: TokenStream) -> syn::Result<TokenStream> {
    if let Ok(name) = syn::parse2::<Path>(code.clone()) {
        return Ok(quote_spanned!(name.span()=> ::chare::__private::named::<#name>()));
    }
    match syn::parse2::<ExprClosure>(code.clone()) {
        Ok(code) => closure(&code),
        // Where the closure itself is not right, that is what to say.
        Err(error) if code.clone().into_iter().next().is_some_and(|first| first.to_string() == "|") => {
            Err(error)
        }
        Err(_) => Err(syn::Error::new_spanned(code, FORM)),
    }
}

fn closure(code: &ExprClosure) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    for word in
        [code.asyncness.map(|word| word.span), code.capture.map(|word| word.span)].into_iter().flatten()
    {
        errors.at(
            word,
            "the closure runs to completion and captures nothing: write it without `async` and `move`",
        );
    }
    let mut typed: Vec<&PatType> = Vec::new();
    for input in &code.inputs {
        match input {
            Pat::Type(param) => typed.push(param),
            other => errors
                .on(other, "`remote!` needs the type of each parameter: `|state: &mut MyChare, n: u64|`"),
        }
    }
    let params = if errors.count() == 0 { params(&typed, code.or1_token.span(), &mut errors) } else { None };
    if let ReturnType::Type(_, ty) = &code.output {
        signature::check_owned(ty, Travels::Result, &mut errors);
    }
    let Some(params) = errors.finish(params)? else { return Ok(TokenStream::new()) };
    let site = Ident::new("__Remote", Span::call_site());
    let at = code.or1_token.span();
    // Reports name a call by it: of all closures, which one is said by its place.
    let name = quote_spanned! {at=>
        ::core::concat!("apply(", ::core::file!(), ":", ::core::line!(), ")")
    };
    let row = row(&quote!(Closure), &name, at, &code.inputs, &code.output, code, &quote!(__CODE));
    let local = Locals::new(&params, code.span());
    let (signature, wrapper) =
        (function_type(&params, &quote!(_)), local.wrapper(&quote!((#code)), &by_its_type(code)));
    let (rows, items) = (rows(&site), site_items(&params));
    let remote = quote! {
        #[allow(clippy::all, clippy::pedantic)]
        let function: #signature = #wrapper;
        let way = {
            use ::chare::__private::ways::*;
            (&&&&::chare::__private::Of::returned(&function)).way()
        };
        let remote = ::chare::Remote::new(#site, function, way);
    };
    Ok(quote! {{
        #[allow(non_camel_case_types)]
        struct #site;
        impl ::chare::__private::Site for #site { #items #row }
        const __CODE: fn(&mut ::chare::__private::Wanted<'_, '_>) = |wanted| {
            #remote
            let copies = {
                use ::chare::__private::ways::*;
                (&&::chare::__private::CallsOf::remote(&remote)).copies()
            };
            wanted.take(remote, copies);
        };
        #rows
        #remote
        remote
    }})
}

/// What `#[chare::remote]` makes beside a function.
pub(crate) fn function(options: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    if !options.is_empty() {
        errors.on(options, "`#[chare::remote]` takes no options");
    }
    let Ok(ItemFn { sig, vis, attrs, .. }) = syn::parse2::<ItemFn>(item.clone()) else {
        return Err(syn::Error::new_spanned(
            item,
            "`#[chare::remote]` goes on a function: `fn name(state: &mut MyChare, ..) -> ..`",
        ));
    };
    if let Some(word) = &sig.asyncness {
        errors.on(word, "a remote function runs to completion: remove `async`, or make it an entry method");
    }
    if let Some(word) = &sig.unsafety {
        errors.on(
            word,
            "a remote function is called by message, so no caller can keep a safety contract: make it safe",
        );
    }
    if !sig.generics.params.is_empty() {
        errors.on(
            &sig.generics,
            "a remote function has one row in the table of the program, so it cannot be generic: write one for each \
             type",
        );
    }
    if let Some(receiver) = sig.receiver() {
        errors.on(
            receiver,
            "a remote function stands by itself: take the chare as `state: &mut MyChare`, or make it an entry method",
        );
    }
    let typed: Vec<&PatType> = sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(param) => Some(param),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let params =
        if errors.count() == 0 { params(&typed, sig.paren_token.span.join(), &mut errors) } else { None };
    if let ReturnType::Type(_, ty) = &sig.output {
        signature::check_owned(ty, Travels::Result, &mut errors);
    }
    let Some(params) = errors.finish(params)? else { return Ok(TokenStream::new()) };
    let name = &sig.ident;
    let cfgs: Vec<_> = attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    let output = match &sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) if is_named(ty, "Result") => quote!(<#ty as ::chare::__private::Flat>::Value),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    let row = row(
        &quote!(Function),
        &format!("apply({name})").into_token_stream(),
        name.span(),
        &sig.inputs,
        &sig.output,
        name,
        &quote!(|wanted| {
            use ::chare::__private::ways::*;
            let remote = ::chare::__private::named::<Self>();
            let copies = (&&::chare::__private::CallsOf::remote(&remote)).copies();
            wanted.take(remote, copies);
        }),
    );
    let local = Locals::new(&params, name.span());
    let wrapper = local.wrapper(&quote!(#name), &as_written(&sig.output));
    let (rows, items) = (rows(name), site_items(&params));
    let codec = wire::codec("output", &output, sig.output.span());
    let signature = function_type(&params, &quote!(Self::Output));
    Ok(quote! {
        #(#cfgs)*
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #vis struct #name {}
        #(#cfgs)*
        #[allow(private_interfaces)]
        impl ::chare::__private::Site for #name { #items #row }
        #(#cfgs)*
        #[allow(clippy::all, clippy::pedantic, deprecated, private_interfaces)]
        impl ::chare::__private::RemoteFn for #name {
            type Output = #output;
            const FUNCTION: #signature = #wrapper;
        }
        #(#cfgs)*
        impl ::chare::__private::Returning<#output> for #name { #codec }
        #(#cfgs)*
        #rows
    })
}

/// Reads parameters: the chare by reference, `cx` or not, then owned arguments. `None` if the first is no chare.
fn params<'a>(typed: &[&'a PatType], span: Span, errors: &mut Errors) -> Option<Params<'a>> {
    const CHARE: &str =
        "remote code runs on a chare, which comes first: `state: &mut MyChare` or `state: &MyChare`";
    let Some((first, rest)) = typed.split_first() else {
        errors.at(span, CHARE);
        return None;
    };
    let Type::Reference(chare) = peel(&first.ty) else {
        errors.on(&first.ty, CHARE);
        return None;
    };
    let takes_cx = rest.first().is_some_and(|param| signature::is_cx(&param.ty));
    let args: Vec<&Type> = rest.iter().skip(usize::from(takes_cx)).map(|param| &*param.ty).collect();
    for ty in &args {
        if signature::is_cx(ty) {
            errors.on(ty, "the context comes right after the chare, by reference: `cx: &Cx<MyChare>`");
        } else {
            signature::check_owned(ty, Travels::Argument, errors);
        }
    }
    Some(Params { chare, takes_cx, args })
}

/// Which chare the code runs on, its arguments and how they travel.
fn site_items(params: &Params<'_>) -> TokenStream {
    let (chare, args) = (&params.chare.elem, arguments(&params.args));
    let travels = wire::travels("args", &params.args, &args, &arguments(&wire::names(params.args.len())));
    let id = wire::cached_id(&quote!(<Self as ::chare::__private::Site>::ROW));
    quote! {
        type Chare = #chare;
        type Args = #args;
        fn code() -> ::chare::__private::CodeId {
            #id
        }
        #travels
    }
}

/// `()`, `A` or `(A, B)`: what `apply_with` takes.
fn arguments<T: ToTokens>(args: &[T]) -> TokenStream {
    match args {
        [one] => quote!(#one),
        several => quote!((#(#several),*)),
    }
}

fn function_type(params: &Params<'_>, output: &TokenStream) -> TokenStream {
    let (chare, args) = (&params.chare.elem, arguments(&params.args));
    quote! {
        fn(&mut #chare, &::chare::Cx<#chare>, #args) -> ::core::result::Result<#output, ::chare::__private::Failure>
    }
}

/// The row of the code in the table of the program. `all` is what tells it apart at its place, `code` gives it to who asks.
fn row(
    kind: &TokenStream,
    name: &TokenStream,
    at: Span,
    inputs: &impl ToTokens,
    output: &ReturnType,
    all: &impl ToTokens,
    code: &TokenStream,
) -> TokenStream {
    let signature = signature::in_words(inputs, output);
    let salt = hash(&all.to_token_stream().to_string());
    let place = quote_spanned! {at=>
        ::chare::__private::Place { file: ::core::file!(), line: ::core::line!(), column: ::core::column!() }
    };
    quote! {
        const ROW: ::chare::__private::Row = ::chare::__private::Row::remote::<Self>(
            ::chare::CodeKind::#kind, #name, #signature, #salt, #place, #code,
        );
    }
}

fn rows(site: &Ident) -> TokenStream {
    codegen::linked(&quote!(<#site as ::chare::__private::Site>::ROW))
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What becomes of `value`, by the return type that is written: a `Result` arrives flat.
fn as_written(output: &ReturnType) -> TokenStream {
    let span = Span::mixed_site();
    match output {
        ReturnType::Type(_, ty) if is_named(ty, "Result") => {
            let at = Span::mixed_site().located_at(ty.span());
            quote_spanned!(at=> ::chare::__private::flat(value))
        }
        _ => quote_spanned!(span=> ::core::result::Result::Ok(value)),
    }
}

/// As above, of a closure, whose type the compiler finds.
fn by_its_type(code: &ExprClosure) -> TokenStream {
    if let ReturnType::Type(..) = code.output {
        return as_written(&code.output);
    }
    let at = Span::mixed_site().located_at(code.body.span());
    quote_spanned! {at=>
        {
            #[allow(unused_imports)]
            use ::chare::__private::{ReturnsResult as _, ReturnsValue as _};
            (&value).returns().flat(value)
        }
    }
}

/// The names inside the generated function. They have the macro's own hygiene and the place of the user's code.
struct Locals {
    span: Span,
    takes_cx: bool,
    is_unique: bool,
    args: Vec<Ident>,
}

impl Locals {
    fn new(params: &Params<'_>, at: Span) -> Locals {
        let span = Span::mixed_site().located_at(at);
        let args = (0..params.args.len()).map(|i| format_ident!("arg{i}", span = span)).collect();
        Locals { span, takes_cx: params.takes_cx, is_unique: params.chare.mutability.is_some(), args }
    }

    /// A closure of the one shape that calls `code` and makes of its `value` what `flat` says.
    fn wrapper(&self, code: &TokenStream, flat: &TokenStream) -> TokenStream {
        let Locals { span, takes_cx, is_unique, args } = self;
        let span = *span;
        let state = if *is_unique { quote_spanned!(span=> state) } else { quote_spanned!(span=> &*state) };
        let cx = takes_cx.then(|| quote_spanned!(span=> cx,));
        let pattern = arguments(args);
        let value = quote_spanned!(span=> let value = #code(#state, #cx #(#args),*););
        quote_spanned!(span=> |state, cx, #pattern| { let _ = cx; #value #flat })
    }
}
