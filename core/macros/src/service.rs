//! How calls of an entry method are served: their rank, `expedited` and `priority = ..`, and whether they run on the
//! stack of their caller, `inline` and `local`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Expr, Ident, Signature, Token, token};

use crate::errors::Errors;

/// The options that are read here.
pub(crate) const OPTIONS: [&str; 4] = ["expedited", "priority", "inline", "local"];

/// How calls of an entry method are served, unless the call says something else.
#[derive(Default)]
pub(crate) struct Service {
    expedited: Option<Ident>,
    priority: Option<(Ident, Expr)>,
    inline: Option<Ident>,
    local: Option<Ident>,
}

impl Service {
    /// Reads what stands after one of [`OPTIONS`].
    pub(crate) fn read(
        &mut self,
        name: &Ident,
        input: ParseStream<'_>,
        errors: &mut Errors,
    ) -> syn::Result<()> {
        if name == "priority" {
            if !input.peek(Token![=]) {
                errors.on(name, "`priority` needs an integer, of which lower ones go first: `priority = -1`");
                return super::options::skip_value(input);
            }
            input.parse::<Token![=]>()?;
            self.priority = Some((name.clone(), Expr::parse(input)?));
            return Ok(());
        }
        if input.peek(Token![=]) || input.peek(token::Paren) {
            errors.on(name, format!("`{name}` takes no value: writing it switches it on"));
            return super::options::skip_value(input);
        }
        let slot = match name.to_string().as_str() {
            "expedited" => &mut self.expedited,
            "inline" => &mut self.inline,
            _ => &mut self.local,
        };
        *slot = Some(name.clone());
        Ok(())
    }

    /// Refuses options that do not go together, or not with the method.
    pub(crate) fn check(&self, signature: &Signature, has_condition: bool, errors: &mut Errors) {
        if let (Some(_), Some((name, _))) = (&self.expedited, &self.priority) {
            errors.on(name, "an expedited call goes before all that have a priority: leave one of the two");
        }
        if let (Some(name), Some(_)) = (&self.inline, &self.local) {
            errors.on(name, "a local entry runs at once, as an inline one does: leave `inline` away");
        }
        for name in [&self.inline, &self.local].into_iter().flatten() {
            if has_condition {
                errors.on(
                    name,
                    format!("`{name}` calls run on the stack of their caller, which cannot wait: remove `when` or `{name}`"),
                );
            }
            if let Some(word) = &signature.asyncness {
                errors.on(
                    word,
                    format!(
                        "`{name}` calls run on the stack of their caller, so to completion: remove `async` or \
                         `{name}`"
                    ),
                );
            }
        }
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Whether calls can run on the stack of their caller.
    pub(crate) fn is_direct(&self) -> bool {
        self.inline.is_some() || self.local.is_some()
    }

    /// The items of the entry that say so.
    pub(crate) fn items(&self) -> TokenStream {
        let rank = match (&self.expedited, &self.priority) {
            (Some(_), _) => quote!(Expedited),
            (None, Some((_, priority))) => quote_spanned!(priority.span()=> at(#priority)),
            (None, None) => TokenStream::new(),
        };
        let rank = (!rank.is_empty())
            .then(|| quote!(const RANK: ::chare::__private::Rank = ::chare::__private::Rank::#rank;));
        let runs = match (&self.local, &self.inline) {
            (Some(_), _) => quote!(Local),
            (None, Some(_)) => quote!(Inline),
            (None, None) => return quote!(#rank),
        };
        quote! {
            #rank
            const RUNS: ::chare::__private::Runs = ::chare::__private::Runs::#runs;
        }
    }
}
