//! What a chare and its entries say of their way to another process. Whether a type can go there is found out at the tokens that are
//! generated here (`chare::__private::Of`): nothing is asked of the user's types.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use crate::codegen::{chare_row, entry_row};
use crate::ir::{Chare, Entry, Returns};

/// The items of `impl Entry`.
pub(crate) fn entry_items(chare: &Chare, entry: &Entry) -> TokenStream {
    let types: Vec<&Type> = entry.inputs.args.iter().map(|arg| &arg.ty).collect();
    let code = code(chare, &entry_row(entry, &quote!(Self)));
    let names = names(types.len());
    let travels = travels("args", &types, &quote!((#(#types,)*)), &quote!((#(#names,)*)));
    let ty = &entry.output;
    let codec = match &entry.returns {
        Returns::Result(at) => {
            let span = Span::mixed_site().located_at(*at);
            codec("output", &quote_spanned!(span=> <#ty as ::chare::__private::Flat>::Value), *at)
        }
        Returns::Value => codec("output", &ty.to_token_stream(), ty.span()),
    };
    quote! {
        #code
        #travels
        #codec
        fn copies() -> ::core::option::Option<&'static ::chare::__private::Copies> {
            use ::chare::__private::ways::*;
            (&&::chare::__private::CallsOf::<Self>::new()).copies()
        }
    }
}

/// The items of `impl Chare`.
pub(crate) fn chare_items(chare: &Chare) -> TokenStream {
    let types: Vec<&Type> = chare.constructor.inputs.args.iter().map(|arg| &arg.ty).collect();
    let code = code(chare, &chare_row(chare, &quote!(Self)));
    let names = names(types.len());
    let (ty, init) = match (types.as_slice(), names.as_slice()) {
        ([ty], [name]) => (ty.to_token_stream(), name.to_token_stream()),
        _ => (quote!((#(#types),*)), quote!((#(#names),*))),
    };
    let travels = travels("init", &types, &ty, &init);
    let makers = if chare.index.is_some() { quote!(Elements) } else { quote!(Alone) };
    let index = match &chare.index {
        Some(index) => codec("index_codec", &index.to_token_stream(), index.span()),
        None => codec("index_codec", &quote!(usize), chare.name.span()),
    };
    quote! {
        #code
        #travels
        #index
        fn encode_state(&self, to: &mut ::chare::__private::Encoder) -> ::chare::__private::Encoded {
            use ::chare::__private::ways::*;
            (&&::chare::__private::Of::<Self>::new()).put_state(self, to)
        }
        fn decode_state(from: &mut ::chare::__private::Decoder<'_>) -> ::chare::__private::Decoded<Self> {
            use ::chare::__private::ways::*;
            (&&::chare::__private::Of::<Self>::new()).take_state(from)
        }
        fn decode(
            kind: ::chare::__private::Kind,
            to: ::chare::__private::ChareId,
            from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::chare::__private::Decoded<::chare::__private::Msg> {
            use ::chare::__private::ways::*;
            (&&&::chare::__private::#makers::<Self>::new()).decode(kind, to, from)
        }
    }
}

/// `encode_<what>` and `decode_<what>`, of values of these types in one of type `whole`, which `pattern` takes apart.
pub(crate) fn travels(
    what: &str,
    types: &[&Type],
    whole: &TokenStream,
    pattern: &TokenStream,
) -> TokenStream {
    let names = names(types.len());
    let (encode, decode) = (format_ident!("encode_{what}"), format_ident!("decode_{what}"));
    let (to, from) = (Ident::new("to", Span::mixed_site()), Ident::new("from", Span::mixed_site()));
    let ways = (!types.is_empty()).then(|| {
        quote!(
            use ::chare::__private::ways::*;
        )
    });
    quote! {
        #[allow(unused_variables)]
        fn #encode(#pattern: #whole, #to: &mut ::chare::__private::Encoder) -> ::chare::__private::Encoded {
            #ways
            #((&&&&::chare::__private::Of::<#types>::new()).put(#names, #to)?;)*
            ::core::result::Result::Ok(())
        }
        #[allow(unused_variables)]
        fn #decode(#from: &mut ::chare::__private::Decoder<'_>) -> ::chare::__private::Decoded<#whole> {
            #ways
            #(let #names = (&&&&::chare::__private::Of::<#types>::new()).take(#from)?;)*
            ::core::result::Result::Ok(#pattern)
        }
    }
}

/// How values of a type travel. What is wrong with the type is reported where the user has written it.
pub(crate) fn codec(what: &str, ty: &TokenStream, at: Span) -> TokenStream {
    let (what, span) = (format_ident!("{what}"), Span::mixed_site().located_at(at));
    quote_spanned! {span=>
        fn #what() -> &'static ::chare::__private::Codec<#ty> {
            use ::chare::__private::ways::*;
            (&&&&::chare::__private::Of::<#ty>::new()).codec()
        }
    }
}

/// The number in the table of the program; of what is generic, if its type is listed.
fn code(chare: &Chare, row: &TokenStream) -> TokenStream {
    let code = if chare.generics.params.is_empty() {
        let id = cached_id(row);
        quote!(::core::option::Option::Some(#id))
    } else {
        quote!(::chare::__private::CodeId::of_generic::<Self>(|| #row))
    };
    quote! {
        fn code() -> ::core::option::Option<::chare::__private::CodeId> {
            #code
        }
    }
}

/// The number of a row, computed once.
pub(crate) fn cached_id(row: &TokenStream) -> TokenStream {
    quote! {{
        static ID: ::chare::__private::CachedId = ::chare::__private::CachedId::new();
        ID.of(|| #row)
    }}
}

pub(crate) fn names(count: usize) -> Vec<Ident> {
    (0..count).map(|place| format_ident!("arg{place}", span = Span::mixed_site())).collect()
}
