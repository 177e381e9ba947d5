//! What a chare and its entries say of their way to another process. Whether a type can go there is found out at the tokens that are
//! generated here (`chare::__private::Of`): nothing is asked of the user's types.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::Type;

use crate::codegen::{chare_row, entry_row};
use crate::ir::{Chare, Entry};

/// The items of `impl Entry`.
pub(crate) fn entry_items(chare: &Chare, entry: &Entry) -> TokenStream {
    let types: Vec<&Type> = entry.inputs.args.iter().map(|arg| &arg.ty).collect();
    let row = entry_row(entry, &quote!(Self));
    let code = code(chare, &row);
    let names = names(types.len());
    let (put, take) = (put(&types, &names), take(&types));
    let span = Span::mixed_site();
    let (to, from) = (Ident::new("to", span), Ident::new("from", span));
    quote! {
        #code
        #[allow(unused_variables)]
        fn encode_args(
            (#(#names,)*): Self::Args,
            #to: &mut ::chare::__private::Encoder,
        ) -> ::core::result::Result<(), ::chare::__private::Stays> {
            #put
            ::core::result::Result::Ok(())
        }
        #[allow(unused_variables)]
        fn decode_args(
            #from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::core::result::Result<Self::Args, ::chare::__private::WireError> {
            #take
            ::core::result::Result::Ok((#(#names,)*))
        }
        fn encode_output(
            output: Self::Output,
            #to: &mut ::chare::__private::Encoder,
        ) -> ::core::result::Result<(), ::chare::__private::Stays> {
            #[allow(unused_imports)]
            use ::chare::__private::{AsBulk as _, AsEither as _, AsNothing as _, AsSerde as _};
            (&&&&::chare::__private::Of::<Self::Output>::new()).put(output, #to)
        }
        fn decode_output(
            #from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::core::result::Result<Self::Output, ::chare::__private::WireError> {
            #[allow(unused_imports)]
            use ::chare::__private::{AsBulk as _, AsEither as _, AsNothing as _, AsSerde as _};
            (&&&&::chare::__private::Of::<Self::Output>::new()).take(#from)
        }
        fn decode(
            kind: ::chare::__private::Kind,
            to: ::chare::__private::ChareId,
            #from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::core::result::Result<::chare::__private::Msg, ::chare::__private::WireError> {
            #[allow(unused_imports)]
            use ::chare::__private::{Broadcasts as _, CallsOnly as _};
            (&&::chare::__private::Decoders::<Self>::new()).decode(kind, to, #from)
        }
    }
}

/// The items of `impl Chare`.
pub(crate) fn chare_items(chare: &Chare) -> TokenStream {
    let types: Vec<&Type> = chare.constructor.inputs.args.iter().map(|arg| &arg.ty).collect();
    let row = chare_row(chare, &quote!(Self));
    let code = code(chare, &row);
    let names = names(types.len());
    let (put, take) = (put(&types, &names), take(&types));
    let init = match names.as_slice() {
        [one] => quote!(#one),
        several => quote!((#(#several),*)),
    };
    let span = Span::mixed_site();
    let (to, from) = (Ident::new("to", span), Ident::new("from", span));
    quote! {
        #code
        #[allow(unused_variables)]
        fn encode_init(
            #init: Self::Init,
            #to: &mut ::chare::__private::Encoder,
        ) -> ::core::result::Result<(), ::chare::__private::Stays> {
            #put
            ::core::result::Result::Ok(())
        }
        #[allow(unused_variables)]
        fn decode_init(
            #from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::core::result::Result<Self::Init, ::chare::__private::WireError> {
            #take
            ::core::result::Result::Ok(#init)
        }
        fn encode_index(
            index: Self::Index,
            #to: &mut ::chare::__private::Encoder,
        ) -> ::core::result::Result<(), ::chare::__private::Stays> {
            #[allow(unused_imports)]
            use ::chare::__private::{AsBulk as _, AsEither as _, AsNothing as _, AsSerde as _};
            (&&&&::chare::__private::Of::<Self::Index>::new()).put(index, #to)
        }
        fn decode_index(
            #from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::core::result::Result<Self::Index, ::chare::__private::WireError> {
            #[allow(unused_imports)]
            use ::chare::__private::{AsBulk as _, AsEither as _, AsNothing as _, AsSerde as _};
            (&&&&::chare::__private::Of::<Self::Index>::new()).take(#from)
        }
        fn encode_state(
            &self,
            #to: &mut ::chare::__private::Encoder,
        ) -> ::core::result::Result<(), ::chare::__private::Stays> {
            #[allow(unused_imports)]
            use ::chare::__private::{StateBySerde as _, StateStays as _};
            (&&::chare::__private::Of::<Self>::new()).put_state(self, #to)
        }
        fn decode_state(
            #from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::core::result::Result<Self, ::chare::__private::WireError> {
            #[allow(unused_imports)]
            use ::chare::__private::{StateBySerde as _, StateStays as _};
            (&&::chare::__private::Of::<Self>::new()).take_state(#from)
        }
        fn decode(
            kind: ::chare::__private::Kind,
            to: ::chare::__private::ChareId,
            #from: &mut ::chare::__private::Decoder<'_>,
        ) -> ::core::result::Result<::chare::__private::Msg, ::chare::__private::WireError> {
            #[allow(unused_imports)]
            use ::chare::__private::{DenseArrays as _, SinglesOnly as _, SparseArrays as _};
            (&&&::chare::__private::Makers::<Self>::new()).decode(kind, to, #from)
        }
    }
}

/// The number in the table of the program, of what is not generic.
fn code(chare: &Chare, row: &TokenStream) -> TokenStream {
    let code = if chare.generics.params.is_empty() {
        quote! {
            static ID: ::chare::__private::CachedId = ::chare::__private::CachedId::new();
            ::core::option::Option::Some(ID.of(|| #row))
        }
    } else {
        quote!(::core::option::Option::None)
    };
    quote! {
        fn code() -> ::core::option::Option<::chare::__private::CodeId> {
            #code
        }
    }
}

fn names(count: usize) -> Vec<Ident> {
    (0..count).map(|place| format_ident!("arg{place}", span = Span::mixed_site())).collect()
}

/// Statements that encode what has these names and types.
fn put(types: &[&Type], names: &[Ident]) -> TokenStream {
    let to = Ident::new("to", Span::mixed_site());
    quote! {
        #[allow(unused_imports)]
        use ::chare::__private::{AsBulk as _, AsEither as _, AsNothing as _, AsSerde as _};
        #((&&&&::chare::__private::Of::<#types>::new()).put(#names, #to)?;)*
    }
}

/// Statements that decode values of these types, under the names that [`names`] gives.
fn take(types: &[&Type]) -> TokenStream {
    let (from, names) = (Ident::new("from", Span::mixed_site()), names(types.len()));
    quote! {
        #[allow(unused_imports)]
        use ::chare::__private::{AsBulk as _, AsEither as _, AsNothing as _, AsSerde as _};
        #(let #names = (&&&&::chare::__private::Of::<#types>::new()).take(#from)?;)*
    }
}
