//! Questions about a type as the user wrote it. The macro sees tokens, not types: an alias is not seen through.

use quote::ToTokens;
use syn::visit::Visit;
use syn::visit_mut::VisitMut;
use syn::{
    Expr, ExprPath, GenericArgument, Lifetime, Path, PathArguments, PathSegment, QSelf, Token, Type,
    TypePath, TypeReference,
};

/// The type without the invisible groups and the parentheses around it.
pub(crate) fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        other => other,
    }
}

/// The last segment of a path type, `Result<T>` of `io::Result<T>`.
pub(crate) fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match peel(ty) {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == name)
}

/// The first type argument of the last segment, `T` of `io::Result<T>`.
pub(crate) fn first_argument(ty: &Type) -> Option<&Type> {
    match &last_segment(ty)?.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
        }
        _ => None,
    }
}

/// Whether `ty` is `Self`, or the chare's type written out.
pub(crate) fn is_self(ty: &Type, chare: &Type) -> bool {
    let ty = peel(ty);
    same(ty, chare) || matches!(ty, Type::Path(path) if path.qself.is_none() && path.path.is_ident("Self"))
}

/// Whether `ty` is `wrapper<Self>`, such as `Cx<Self>`.
pub(crate) fn wraps_self(ty: &Type, wrapper: &str, chare: &Type) -> bool {
    is_named(ty, wrapper) && first_argument(ty).is_some_and(|argument| is_self(argument, chare))
}

fn same(a: &Type, b: &Type) -> bool {
    a.to_token_stream().to_string() == b.to_token_stream().to_string()
}

/// What keeps a type from travelling in a message.
pub(crate) enum Unsendable<'a> {
    Reference(&'a TypeReference),
    Lifetime(&'a Lifetime),
    Impl(&'a Type),
}

/// The first part of `ty` that borrows, or that has no name. Function pointers may mention references.
pub(crate) fn unsendable(ty: &Type) -> Option<Unsendable<'_>> {
    struct Find<'a>(Option<Unsendable<'a>>);
    impl<'a> Visit<'a> for Find<'a> {
        fn visit_type(&mut self, ty: &'a Type) {
            match ty {
                _ if self.0.is_some() => {}
                Type::Reference(reference) => self.0 = Some(Unsendable::Reference(reference)),
                Type::ImplTrait(_) => self.0 = Some(Unsendable::Impl(ty)),
                Type::BareFn(_) => {}
                other => syn::visit::visit_type(self, other),
            }
        }
        fn visit_parenthesized_generic_arguments(&mut self, _: &'a syn::ParenthesizedGenericArguments) {}
        fn visit_lifetime(&mut self, lifetime: &'a Lifetime) {
            if self.0.is_none() && lifetime.ident != "static" {
                self.0 = Some(Unsendable::Lifetime(lifetime));
            }
        }
    }
    let mut find = Find(None);
    find.visit_type(ty);
    find.0
}

/// Replaces `Self` by the chare's type, so that what was written inside the `impl` block means the same outside it.
pub(crate) struct ReplaceSelf<'a>(pub(crate) &'a Type);

impl ReplaceSelf<'_> {
    pub(crate) fn lifted(&mut self, ty: &Type) -> Type {
        let mut ty = ty.clone();
        self.visit_type_mut(&mut ty);
        ty
    }

    /// `Self::N` as `<Chare>::N`.
    fn qualified(&self, path: &Path) -> Option<(QSelf, Path)> {
        let starts_with_self = path.leading_colon.is_none() && path.segments.first()?.ident == "Self";
        if !starts_with_self || path.segments.len() < 2 {
            return None;
        }
        let qself = QSelf {
            lt_token: <Token![<]>::default(),
            ty: Box::new(self.0.clone()),
            position: 0,
            as_token: None,
            gt_token: <Token![>]>::default(),
        };
        let segments = path.segments.iter().skip(1).cloned().collect();
        Some((qself, Path { leading_colon: Some(<Token![::]>::default()), segments }))
    }
}

impl VisitMut for ReplaceSelf<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        syn::visit_mut::visit_type_mut(self, ty);
        let Type::Path(TypePath { qself: None, path }) = ty else {
            return;
        };
        if path.is_ident("Self") {
            *ty = self.0.clone();
        } else if let Some((qself, path)) = self.qualified(path) {
            *ty = Type::Path(TypePath { qself: Some(qself), path });
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        syn::visit_mut::visit_expr_mut(self, expr);
        if let Expr::Path(ExprPath { qself: qself @ None, path, .. }) = expr
            && let Some((new_qself, new_path)) = self.qualified(path)
        {
            (*qself, *path) = (Some(new_qself), new_path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn ty(tokens: proc_macro2::TokenStream) -> Type {
        syn::parse2(tokens).expect("a type")
    }

    #[test]
    fn self_is_replaced_wherever_it_stands() {
        let chare = ty(quote!(Grid<T>));
        let lifted = |tokens| {
            let lifted = ReplaceSelf(&chare).lifted(&ty(tokens));
            lifted.to_token_stream().to_string()
        };
        let expect = |tokens| ty(tokens).to_token_stream().to_string();
        assert_eq!(lifted(quote!(Self)), expect(quote!(Grid<T>)));
        assert_eq!(
            lifted(quote!((Vec<Self>, fn(Self) -> u8))),
            expect(quote!((Vec<Grid<T>>, fn(Grid<T>) -> u8)))
        );
        assert_eq!(lifted(quote!([f64; 2 * Self::N])), expect(quote!([f64; 2 * <Grid<T>>::N])));
        assert_eq!(lifted(quote!(Self::Part)), expect(quote!(<Grid<T>>::Part)));
        assert_eq!(lifted(quote!(<Self as Shape>::Part)), expect(quote!(<Grid<T> as Shape>::Part)));
    }

    #[test]
    fn only_what_borrows_is_unsendable() {
        for owned in [
            quote!(Vec<Option<String>>),
            quote!(fn(&str) -> &str),
            quote!(Cow<'static, str>),
            quote!(Box<dyn Fn(&str) + Send>),
        ] {
            assert!(unsendable(&ty(owned.clone())).is_none(), "{owned}");
        }
        let reference = ty(quote!(Option<(u8, &str)>));
        assert!(matches!(unsendable(&reference), Some(Unsendable::Reference(_))));
        let lifetime = ty(quote!(Ref<'_, T>));
        assert!(matches!(unsendable(&lifetime), Some(Unsendable::Lifetime(_))));
        let unnamed = ty(quote!(Vec<impl Copy>));
        assert!(matches!(unsendable(&unnamed), Some(Unsendable::Impl(_))));
    }

    #[test]
    fn a_result_is_known_by_its_last_name() {
        let chare = ty(quote!(Hello));
        for result in [quote!(Result<Self>), quote!(io::Result<Hello>), quote!(std::result::Result<Self, E>)]
        {
            assert!(wraps_self(&ty(result.clone()), "Result", &chare), "{result}");
        }
        for other in [quote!(Result<u8>), quote!(Option<Self>), quote!(Results<Self>), quote!(Self)] {
            assert!(!wraps_self(&ty(other.clone()), "Result", &chare), "{other}");
        }
    }
}
