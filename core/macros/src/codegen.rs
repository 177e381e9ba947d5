//! From [`ir`](crate::ir) to items: the chare's traits, one marker type per entry method, the extension trait of its
//! proxies, and checks that report at the user's own tokens.
//!
//! A marker has the chare's type as its one parameter, `__Hello_say_hi<Hello>`. It makes the marker exactly as
//! visible as the chare (an `impl` block does not know whether its type is `pub`), and serves generic chares too.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Ident};

use crate::ir::{Arg, Chare, Constructor, Entry, Inputs, Mode, Receiver, Returns, When};
use crate::parse::constant_name;

/// Everything that is generated beside the user's block.
pub(crate) fn chare(chare: &Chare) -> TokenStream {
    let items = [chare_impl(chare), checks(chare), constants(chare), entries_trait(chare), rows(chare)];
    let entries = chare.entries.iter().map(|entry| entry_impl(chare, entry));
    let cfgs = &chare.cfgs;
    let all = items.into_iter().flatten().chain(entries.flatten());
    let all = all.map(|item| quote!(#(#cfgs)* #item));
    quote!(#(#all)*)
}

/// `impl Chare`, and the trait that says what collections it can be in.
fn chare_impl(chare: &Chare) -> Vec<TokenStream> {
    let Chare { ty, name, keep_after_panic, .. } = chare;
    let (impl_generics, _, where_clause) = chare.generics.split_for_impl();
    let name = name.unraw().to_string();
    let index = chare.index.as_ref().map_or_else(|| quote!(usize), ToTokens::to_token_stream);
    let kind = if chare.index.is_some() { quote!(ArrayElement) } else { quote!(Standalone) };
    let init = init_item(&chare.constructor);
    let construct = construct_fn(chare);
    let migrated = migrated_item(chare);
    let travels = crate::wire::chare_items(chare);
    let line = line_of(chare.name.span());
    vec![
        quote! {
            #[automatically_derived]
            #[allow(clippy::all, clippy::pedantic, deprecated)]
            impl #impl_generics ::chare::Chare for #ty #where_clause {
                type Index = #index;
                #init
                const INFO: &'static ::chare::ChareInfo =
                    &::chare::ChareInfo { name: #name, file: ::core::file!(), line: #line };
                const KEEP_AFTER_PANIC: bool = #keep_after_panic;
                #migrated
                #construct
                #travels
            }
        },
        quote! {
            #[automatically_derived]
            impl #impl_generics ::chare::#kind for #ty #where_clause {}
        },
    ]
}

fn migrated_item(chare: &Chare) -> Option<TokenStream> {
    let (ty, hook) = (&chare.ty, chare.migrated.as_ref()?);
    let cx = hook.takes_cx.then(|| quote_spanned!(hook.span=> cx));
    Some(quote_spanned! {hook.span=>
        const MIGRATED: ::core::option::Option<fn(&mut Self, &::chare::Cx<Self>)> =
            ::core::option::Option::Some(|chare, cx| {
                let _ = cx;
                <#ty>::migrated(chare, #cx)
            });
    })
}

/// `()`, `A` or `(A, B)`: what `create` takes.
fn init_item(Constructor { span, inputs, .. }: &Constructor) -> TokenStream {
    let (args, span) = (&inputs.args, *span);
    let types = args.iter().map(|arg| &arg.ty);
    match args.as_slice() {
        [Arg { ty, .. }] => quote_spanned!(ty.span()=> type Init = #ty;),
        _ => quote_spanned!(span=> type Init = (#(#types),*);),
    }
}

fn construct_fn(chare: &Chare) -> TokenStream {
    let Constructor { span, is_async, inputs, returns } = &chare.constructor;
    let local = Locals::new(*span, inputs);
    let (cx, names) = (local.cx(), &local.args);
    let init = match names.as_slice() {
        [one] => one.to_token_stream(),
        _ => quote!((#(#names),*)),
    };
    let span = local.span;
    let build = if *is_async {
        let call = call_new(chare, &local, &quote_spanned!(span=> &cx));
        let value = finished(awaited(call, span), returns, span);
        let check = must_be_send(span);
        quote_spanned!(span=> #check start.coroutine(|#cx, #init| async move { #value }))
    } else {
        let value = finished(call_new(chare, &local, &local.cx), returns, span);
        quote_spanned!(span=> start.plain(|#cx, #init| #value))
    };
    quote_spanned!(span=> fn construct(start: ::chare::__private::Construct<'_, Self>) { #build })
}

fn call_new(chare: &Chare, local: &Locals, cx: &TokenStream) -> TokenStream {
    let (ty, names, span) = (&chare.ty, &local.args, local.span);
    let cx = local.takes_cx.then(|| quote_spanned!(span=> #cx,));
    quote_spanned!(span=> <#ty>::new(#cx #(#names),*))
}

/// The marker type of an entry method and what it says about it.
fn entry_impl(chare: &Chare, entry: &Entry) -> Vec<TokenStream> {
    let ty = &chare.ty;
    let cfgs = &entry.cfgs;
    let (impl_generics, _, where_clause) = chare.generics.split_for_impl();
    let marker = marker_name(chare, entry);
    let marker_ty = marker_type(chare, entry);
    let chare_name = chare.name.unraw().to_string();
    let name = entry.name.unraw().to_string();
    let line = line_of(entry.name.span());
    let (args, output) = (args_item(entry), output_item(entry));
    let deliver = deliver_fn(chare, entry);
    let service = entry.service.items();
    let restart = entry.is_restartable.then(|| {
        quote!(
            const IS_RESTARTABLE: bool = true;
        )
    });
    let way = if entry.service.is_direct() { quote!(Direct) } else { quote!(ByMessage) };
    let when = entry.when.as_ref().map(|_| when_fn(chare, entry));
    let condition = entry.when.as_ref().map(|when| condition_impl(chare, entry, when));
    let travels = crate::wire::entry_items(chare, entry);
    let items = vec![
        quote! {
            #(#cfgs)*
            #[doc(hidden)]
            #[allow(non_camel_case_types, dead_code, unreachable_pub)]
            pub struct #marker<C>(::core::marker::PhantomData<fn() -> C>);
        },
        quote! {
            #(#cfgs)*
            #[automatically_derived]
            #[allow(clippy::all, clippy::pedantic, deprecated)]
            impl #impl_generics ::chare::Entry for #marker_ty #where_clause {
                type Chare = #ty;
                #args
                #output
                const INFO: &'static ::chare::EntryInfo = &::chare::EntryInfo {
                    chare: #chare_name,
                    name: #name,
                    file: ::core::file!(),
                    line: #line,
                };
                #service
                #restart
                #when
                #deliver
                #travels
            }
        },
        quote! {
            #(#cfgs)*
            #[automatically_derived]
            impl #impl_generics ::chare::#way for #marker_ty #where_clause {}
        },
    ];
    items.into_iter().chain(condition).collect()
}

/// The arguments as a tuple. An error about the item or the tuple is at the one argument, or at the method.
fn args_item(entry: &Entry) -> TokenStream {
    let types = entry.inputs.args.iter().map(|arg| &arg.ty);
    let span = match entry.inputs.args.as_slice() {
        [one] => one.ty.span(),
        _ => entry.name.span(),
    };
    quote_spanned!(span=> type Args = (#(#types,)*);)
}

fn output_item(Entry { output, returns, .. }: &Entry) -> TokenStream {
    match returns {
        Returns::Result(at) => {
            let span = Span::mixed_site().located_at(*at);
            quote_spanned!(span=> type Output = <#output as ::chare::__private::Flat>::Value;)
        }
        Returns::Value => quote_spanned!(output.span()=> type Output = #output;),
    }
}

fn deliver_fn(chare: &Chare, entry: &Entry) -> TokenStream {
    let local = Locals::new(entry.name.span(), &entry.inputs);
    let (cx, names, span) = (local.cx(), &local.args, local.span);
    let args = quote_spanned!(span=> (#(#names,)*));
    let coroutine = |state: TokenStream| {
        let call = call_entry(chare, entry, &local, &state, &quote_spanned!(span=> &cx));
        finished(awaited(call, span), &entry.returns, span)
    };
    let check = must_be_send(span);
    let (exclusive, interleaving) = if entry.is_restartable {
        (quote_spanned!(span=> exclusive_restartable), quote_spanned!(span=> interleaving_restartable))
    } else {
        (quote_spanned!(span=> exclusive), quote_spanned!(span=> interleaving))
    };
    let run = match &entry.mode {
        Mode::Plain => {
            let call = call_entry(chare, entry, &local, &quote_spanned!(span=> state), &local.cx);
            let value = finished(call, &entry.returns, span);
            quote_spanned!(span=> delivery.plain(|state, #cx, #args| #value))
        }
        Mode::Exclusive { receiver } => {
            let (binding, borrow) = match receiver {
                Receiver::Shared => (quote_spanned!(span=> state), quote_spanned!(span=> &state)),
                Receiver::Unique => (quote_spanned!(span=> mut state), quote_spanned!(span=> &mut state)),
            };
            let value = coroutine(borrow);
            // SAFETY: (of what is generated) the token goes into the coroutine and nowhere else; the method borrows it.
            quote_spanned! {span=>
                #check unsafe { delivery.#exclusive(|#binding, #cx, #args| async move { #value }) }
            }
        }
        Mode::Interleaving => {
            let value = coroutine(quote_spanned!(span=> this));
            quote_spanned!(span=> #check delivery.#interleaving(|this, #args| async move { #value }))
        }
    };
    // Of plain methods it is short, and has two callers: that of messages and that of broadcasts.
    let inline = match entry.mode {
        Mode::Plain => quote_spanned!(span=> #[inline(always)]),
        _ => quote_spanned!(span=> #[inline]),
    };
    quote_spanned!(span=> #inline fn deliver(delivery: ::chare::__private::Delivery<'_, Self>) { #run })
}

/// The entry's condition, which [`condition_impl`] makes.
fn when_fn(chare: &Chare, entry: &Entry) -> TokenStream {
    let (ty, name) = (&chare.ty, condition_name(entry));
    quote! {
        fn when() -> impl ::chare::__private::When<Self> {
            <#ty>::#name()
        }
    }
}

fn condition_name(entry: &Entry) -> Ident {
    format_ident!("__{}_when", entry.name.unraw(), span = Span::call_site())
}

/// The user's condition, in an `impl` block of the chare: there `Self` means in it what it means in the method.
fn condition_impl(chare: &Chare, entry: &Entry, when: &When) -> TokenStream {
    let (ty, cfgs, name) = (&chare.ty, &entry.cfgs, condition_name(entry));
    let (impl_generics, _, where_clause) = chare.generics.split_for_impl();
    let marker_ty = marker_type(chare, entry);
    let condition = condition(chare, entry, when);
    quote! {
        #(#cfgs)*
        #[automatically_derived]
        #[allow(clippy::all, clippy::pedantic, deprecated)]
        impl #impl_generics #ty #where_clause {
            #[doc(hidden)]
            fn #name() -> impl ::chare::__private::When<#marker_ty> {
                #condition
            }
        }
    }
}

/// A closure goes through a function that says its type, so that what is wrong with it is reported at its own tokens and
/// what it leaves out is inferred.
fn condition(chare: &Chare, entry: &Entry, when: &When) -> TokenStream {
    let (ty, marker_ty) = (&chare.ty, marker_type(chare, entry));
    let types: Vec<_> = entry.inputs.args.iter().map(|arg| &arg.ty).collect();
    let at = match when {
        When::State(closure) | When::Call(closure) => closure.or1_token.span(),
        When::Tag { equation, .. } => equation.span(),
    };
    let span = Span::mixed_site().located_at(at);
    let text = crate::when::source(when);
    match when {
        When::State(closure) => quote_spanned! {span=>
            fn condition<S, F: ::core::ops::Fn(&S) -> bool>(condition: F) -> F {
                condition
            }
            let condition = condition::<#ty, _>(#closure);
            ::chare::__private::on_state::<#marker_ty, _>(#text, condition)
        },
        When::Call(closure) => {
            let kinds: Vec<_> = (0..types.len()).map(|i| Ident::new(&format!("A{i}"), span)).collect();
            let names: Vec<_> = (0..types.len()).map(|i| Ident::new(&format!("arg{i}"), span)).collect();
            quote_spanned! {span=>
                fn condition<S, #(#kinds,)* F>(condition: F) -> F
                where
                    F: ::core::ops::Fn(&S, #(&#kinds),*) -> bool,
                {
                    condition
                }
                let condition = condition::<#ty, #(#types,)* _>(#closure);
                ::chare::__private::on_call::<#marker_ty, _>(
                    #text,
                    move |state, (#(#names,)*)| condition(state, #(#names),*),
                )
            }
        }
        When::Tag { of_state, argument, of_argument, at, .. } => {
            let at = Span::mixed_site().located_at(*at);
            let argument = syn::Index::from(*argument);
            let of_args = quote_spanned!(at=> |args| &args.#argument #(.#of_argument)*);
            quote_spanned! {span=>
                #[allow(unused_imports)]
                use ::chare::__private::{ShowDebug as _, ShowNothing as _};
                let tag = ::chare::__private::on_tag::<#marker_ty, _, _, _>(
                    #text,
                    |state| &state #(.#of_state)*,
                    #of_args,
                );
                (&&tag).shown()
            }
        }
    }
}

/// `<Chare>::method(state, cx, args..)`.
fn call_entry(
    chare: &Chare,
    entry: &Entry,
    local: &Locals,
    state: &TokenStream,
    cx: &TokenStream,
) -> TokenStream {
    let (ty, names, span) = (&chare.ty, &local.args, local.span);
    let cx = local.takes_cx.then(|| quote_spanned!(span=> #cx,));
    // The method keeps the user's hygiene; everything around it has that of the macro.
    let method = &entry.name;
    quote_spanned!(span=> <#ty>::#method(#state, #cx #(#names),*))
}

/// Awaits a coroutine. When it is not `Send`, the compiler says so here, at the method's name, and only once: the call
/// stands in the same body as everything else that needs the future to be.
fn awaited(coroutine: TokenStream, span: Span) -> TokenStream {
    quote_spanned!(span=> must_be_send(#coroutine).await)
}

/// What [`awaited`] calls; goes before the code that does.
fn must_be_send(span: Span) -> TokenStream {
    quote_spanned! {span=>
        fn must_be_send<F: ::core::future::Future + ::core::marker::Send>(coroutine: F) -> F {
            coroutine
        }
    }
}

/// What the user's code returned, as the runtime's `Result`. An error that cannot be one is reported at the type.
fn finished(value: TokenStream, returns: &Returns, span: Span) -> TokenStream {
    match returns {
        Returns::Result(at) => {
            let at = Span::mixed_site().located_at(*at);
            quote_spanned!(at=> ::chare::__private::flat(#value))
        }
        Returns::Value => quote_spanned!(span=> ::core::result::Result::Ok(#value)),
    }
}

/// The names inside a generated closure. They have the macro's own hygiene and the place of the user's method.
struct Locals {
    span: Span,
    takes_cx: bool,
    cx: TokenStream,
    args: Vec<Ident>,
}

impl Locals {
    fn new(at: Span, inputs: &Inputs) -> Locals {
        let span = Span::mixed_site().located_at(at);
        let args = (0..inputs.args.len()).map(|i| Ident::new(&format!("arg{i}"), span)).collect();
        Locals { span, takes_cx: inputs.takes_cx, cx: quote_spanned!(span=> cx), args }
    }

    /// The closure's parameter for the context.
    fn cx(&self) -> TokenStream {
        let span = self.span;
        if self.takes_cx { self.cx.clone() } else { quote_spanned!(span=> _) }
    }
}

/// The trait with which every proxy of the chare has its entry methods.
fn entries_trait(chare: &Chare) -> Vec<TokenStream> {
    let (ty, generics) = (&chare.ty, &chare.generics);
    let name = format_ident!("{}Entries", chare.name.unraw(), span = chare.name.span());
    let (_, ty_generics, where_clause) = generics.split_for_impl();
    let mut with_target = generics.clone();
    with_target.params.push(syn::parse_quote!(__Target: ::chare::Target<Chare = #ty>));
    let (impl_generics, _, _) = with_target.split_for_impl();
    let (params, _, _) = generics.split_for_impl();
    let calls = chare.entries.iter().map(|entry| trait_method(chare, entry));
    let doc =
        format!("Calls of `{}`'s entry methods, on an element or on a whole collection.", chare.name.unraw());
    vec![
        quote! {
            #[doc = #doc]
            #[allow(private_bounds, private_interfaces, unreachable_pub, dead_code, clippy::all, clippy::pedantic)]
            pub trait #name #params: ::chare::Target<Chare = #ty> #where_clause {
                #(#calls)*
            }
        },
        quote! {
            #[automatically_derived]
            impl #impl_generics #name #ty_generics for __Target #where_clause {}
        },
    ]
}

fn trait_method(chare: &Chare, entry: &Entry) -> TokenStream {
    let Entry { name, cfgs, deprecated, .. } = entry;
    let marker_ty = marker_type(chare, entry);
    let docs = docs_or(&entry.docs, format!("Calls `{}::{}`.", chare.name.unraw(), name.unraw()));
    let names: Vec<_> = entry.inputs.args.iter().map(|arg| &arg.name).collect();
    let types = entry.inputs.args.iter().map(|arg| &arg.ty);
    let on_one = entry.service.is_local().then(|| quote!(where Self: ::chare::__private::OneChare));
    quote! {
        #docs
        #(#cfgs)*
        #(#deprecated)*
        #[track_caller]
        fn #name(&self, #(#names: #types),*) -> <Self as ::chare::Target>::Call<#marker_ty> #on_one {
            ::chare::Target::call(self, (#(#names,)*))
        }
    }
}

/// The entry methods as values, `Hello::SAY_HI`.
fn constants(chare: &Chare) -> Vec<TokenStream> {
    if chare.entries.is_empty() {
        return Vec::new();
    }
    let ty = &chare.ty;
    let (impl_generics, _, where_clause) = chare.generics.split_for_impl();
    let constants = chare.entries.iter().filter(|entry| !entry.service.is_local()).map(|entry| {
        let Entry { name, cfgs, deprecated, .. } = entry;
        let constant = constant_name(name);
        let marker_ty = marker_type(chare, entry);
        let doc = format!("The entry method `{}`, as the target of a callback.", name.unraw());
        quote! {
            #[doc = #doc]
            #(#cfgs)*
            #(#deprecated)*
            #[allow(dead_code, private_interfaces, unreachable_pub)]
            pub const #constant: ::chare::EntryPoint<#marker_ty> = ::chare::EntryPoint::new();
        }
    });
    vec![quote! {
        impl #impl_generics #ty #where_clause {
            #(#constants)*
        }
    }]
}

/// A function that is never called: it does not compile when one of several arguments cannot travel, and then the
/// error is at the argument's own type. (A single argument is reported there by the traits' own items.)
fn checks(chare: &Chare) -> Vec<TokenStream> {
    let init = own_checks(&chare.constructor.inputs.args);
    let entries = chare.entries.iter().map(|entry| {
        let cfgs = &entry.cfgs;
        let owned = own_checks(&entry.inputs.args);
        let cloned = entry.is_restartable.then(|| clone_checks(&entry.inputs.args));
        (owned.is_some() || cloned.is_some()).then(|| quote!(#(#cfgs)* { #owned #cloned }))
    });
    let checks: Vec<TokenStream> = std::iter::once(init).chain(entries).flatten().collect();
    if checks.is_empty() {
        return Vec::new();
    }
    let (impl_generics, _, where_clause) = chare.generics.split_for_impl();
    vec![quote! {
        #[allow(dead_code, deprecated, clippy::all, clippy::pedantic)]
        const _: () = {
            fn check #impl_generics () #where_clause {
                #(#checks)*
            }
        };
    }]
}

/// An entry that is started again gets its arguments again.
fn clone_checks(args: &[Arg]) -> TokenStream {
    let checks = args.iter().map(|Arg { ty, .. }| {
        let span = Span::mixed_site().located_at(ty.span());
        quote_spanned!(span=> ::chare::__private::must_clone::<#ty>();)
    });
    quote!(#(#checks)*)
}

fn own_checks(args: &[Arg]) -> Option<TokenStream> {
    let checks = args.iter().map(|Arg { ty, .. }| {
        let span = Span::mixed_site().located_at(ty.span());
        quote_spanned!(span=> ::chare::__private::must_own::<#ty>();)
    });
    (args.len() > 1).then(|| quote!(#(#checks)*))
}

/// The chare and its entry methods in the table of the program. Those of a generic chare are as many as its types, which
/// the program lists.
fn rows(chare: &Chare) -> Vec<TokenStream> {
    let types = if chare.generics.params.is_empty() { std::slice::from_ref(&chare.ty) } else { &chare.types };
    let of_type = |ty: &syn::Type| {
        let rows = chare.entries.iter().map(|entry| {
            let (cfgs, marker) = (&entry.cfgs, marker_name(chare, entry));
            let row = entry_row(entry, &quote!(#marker<#ty>));
            quote!(#(#cfgs)* #row)
        });
        let chare = chare_row(chare, &ty.to_token_stream());
        linked(&quote!(#chare, #(#rows),*))
    };
    types.iter().map(of_type).collect()
}

/// The row of an entry, by the type that stands for it.
pub(crate) fn entry_row(entry: &Entry, marker: &TokenStream) -> TokenStream {
    let (signature, column) = (&entry.signature, column_of(entry.name.span()));
    quote!(::chare::__private::Row::entry::<#marker>(#signature, #column))
}

/// The row of a chare.
pub(crate) fn chare_row(chare: &Chare, ty: &TokenStream) -> TokenStream {
    let types = chare.constructor.inputs.args.iter().map(|arg| &arg.ty);
    let signature = format!("({})", quote!(#(#types),*));
    let column = column_of(chare.name.span());
    quote!(::chare::__private::Row::chare::<#ty>(#signature, #column))
}

/// Adds rows to the table of the program.
pub(crate) fn linked(rows: &TokenStream) -> TokenStream {
    quote! {
        const _: () = {
            #[::chare::__private::linkme::distributed_slice(::chare::__private::ROWS)]
            #[linkme(crate = ::chare::__private::linkme)]
            static ROWS: &'static [::chare::__private::Row] = &[#rows];
        };
    }
}

fn marker_name(chare: &Chare, entry: &Entry) -> Ident {
    format_ident!("__{}_{}", chare.name.unraw(), entry.name.unraw(), span = Span::call_site())
}

fn marker_type(chare: &Chare, entry: &Entry) -> TokenStream {
    let (marker, ty) = (marker_name(chare, entry), &chare.ty);
    quote!(#marker<#ty>)
}

fn column_of(span: Span) -> TokenStream {
    quote_spanned!(span=> ::core::column!())
}

/// The line of `span` in the user's file: `line!()` takes it from the span of its own tokens.
fn line_of(span: Span) -> TokenStream {
    quote_spanned!(span=> ::core::line!())
}

fn docs_or(docs: &[Attribute], otherwise: String) -> TokenStream {
    if docs.is_empty() { quote!(#[doc = #otherwise]) } else { quote!(#(#docs)*) }
}
