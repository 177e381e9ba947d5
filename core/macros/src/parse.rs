//! From the tokens under `#[chare]` to [`ir`](crate::ir), refusing every misuse on the way.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::visit::Visit;
use syn::visit_mut::VisitMut;
use syn::{Attribute, Ident, ImplItem, ImplItemFn, Item, ItemImpl, Lifetime, Type};

use crate::errors::Errors;
use crate::ir::{Chare, Constructor, Entry, Hook, Mode};
use crate::options::{self, ChareOptions, EntryOptions};
use crate::signature::{self, Method};
use crate::types::{ReplaceSelf, last_segment, peel};
use crate::when;

/// Names that proxies, calls and every value have already, or will have: an entry method of that name could not be
/// called.
const RESERVED: &[&str] = &[
    "apply",
    "at",
    "await_all",
    "broadcast",
    "call",
    "callback",
    "clone",
    "collection",
    "contribute",
    "destroy",
    "eq",
    "expedited",
    "fmt",
    "future",
    "gather",
    "hash",
    "id",
    "index",
    "insert",
    "into",
    "len",
    "local",
    "migrate",
    "ne",
    "now",
    "on",
    "priority",
    "send",
    "slice",
    "split",
    "step_by",
    "to",
    "to_owned",
    "try_into",
    "when",
];

/// Names that only proxies of arrays have.
const RESERVED_BY_ARRAYS: &[&str] = &["element_count", "elements", "try_at", "shape"];

/// What the item under `#[chare]` is, and what is wrong with it.
pub(crate) struct Parsed {
    /// The user's item without the attributes that are ours.
    pub(crate) block: TokenStream,
    /// `None` when nothing can be generated for it.
    pub(crate) chare: Option<Chare>,
    pub(crate) errors: Errors,
}

pub(crate) fn chare(options: TokenStream, item: TokenStream) -> Parsed {
    let mut errors = Errors::default();
    let options = ChareOptions::parse(options, &mut errors);
    let mut block = match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Impl(block)) => block,
        Ok(other) => {
            errors.at(head_span(&other), wrong_item(&other));
            return Parsed { block: item, chare: None, errors };
        }
        Err(error) => {
            errors.push(error);
            return Parsed { block: item, chare: None, errors };
        }
    };
    let methods = take_methods(&mut block, &mut errors);
    let chare = read_block(&block, methods, options, &mut errors);
    Parsed { block: block.into_token_stream(), chare, errors }
}

fn wrong_item(item: &Item) -> &'static str {
    match item {
        Item::Struct(_) | Item::Enum(_) | Item::Union(_) => {
            "`#[chare]` goes on the `impl` block with the type's methods, not on the type: move it there"
        }
        Item::Fn(_) => {
            "`#[chare]` goes on the `impl` block of a type; on a function write `#[chare::main]` or `#[chare::test]`"
        }
        _ => "`#[chare]` goes on an `impl` block: `#[chare] impl MyType { .. }`",
    }
}

/// Where to report that an item is of the wrong kind: its name where it has one.
fn head_span(item: &Item) -> Span {
    match item {
        Item::Struct(item) => item.ident.span(),
        Item::Enum(item) => item.ident.span(),
        Item::Union(item) => item.ident.span(),
        Item::Trait(item) => item.ident.span(),
        Item::Mod(item) => item.ident.span(),
        Item::Fn(item) => item.sig.ident.span(),
        _ => Span::call_site(),
    }
}

/// The methods that concern the runtime.
struct Methods {
    constructors: Vec<ImplItemFn>,
    hooks: Vec<ImplItemFn>,
    entries: Vec<(ImplItemFn, EntryOptions)>,
}

/// Takes every `#[entry]` off the block and copies the methods that had one, and those named `new` or `migrated`.
fn take_methods(block: &mut ItemImpl, errors: &mut Errors) -> Methods {
    let mut methods = Methods { constructors: Vec::new(), hooks: Vec::new(), entries: Vec::new() };
    for item in &mut block.items {
        let attributes = match item {
            ImplItem::Fn(method) => &mut method.attrs,
            ImplItem::Const(item) => &mut item.attrs,
            ImplItem::Type(item) => &mut item.attrs,
            ImplItem::Macro(item) => &mut item.attrs,
            _ => continue,
        };
        let ours: Vec<Attribute> = attributes.extract_if(.., |attribute| is_entry(attribute)).collect();
        let ImplItem::Fn(method) = item else {
            for attribute in ours {
                errors.on(attribute, "`#[entry]` goes on a method: a `fn` with a receiver");
            }
            continue;
        };
        if let Some(second) = ours.get(1) {
            errors.on(second, "a second `#[entry]` on this method: one is enough");
        }
        let options = ours.first().map(|attribute| options::parse_entry(attribute, errors));
        if method.sig.ident == "new" {
            if let Some(attribute) = ours.first() {
                errors.on(
                    attribute,
                    "`new` is the constructor, called when the chare is created: remove `#[entry]`, or rename it",
                );
            }
            methods.constructors.push(method.clone());
        } else if method.sig.ident == "migrated" {
            if let Some(attribute) = ours.first() {
                errors.on(
                    attribute,
                    "`migrated` is called when the chare has moved to another PE: remove `#[entry]`, or rename it",
                );
            }
            methods.hooks.push(method.clone());
        } else if let Some(options) = options {
            methods.entries.push((method.clone(), options));
        }
    }
    methods
}

/// `#[entry]`, or the same by its full path.
fn is_entry(attribute: &Attribute) -> bool {
    let path = attribute.path();
    let mut segments = path.segments.iter();
    path.is_ident("entry")
        || (segments.next().is_some_and(|segment| segment.ident == "chare")
            && segments.next().is_some_and(|segment| segment.ident == "entry")
            && segments.next().is_none())
}

fn read_block(
    block: &ItemImpl,
    methods: Methods,
    options: ChareOptions,
    errors: &mut Errors,
) -> Option<Chare> {
    if let Some((_, path, _)) = &block.trait_ {
        errors.on(
            path,
            "`#[chare]` goes on the type's own `impl` block, and this one implements a trait: write the entry \
             methods in `impl MyType { .. }`",
        );
        return None;
    }
    if let Some(unsafety) = &block.unsafety {
        errors.on(unsafety, "an `impl` block of a chare is not `unsafe`: remove it");
    }
    let ty = peel(&block.self_ty).clone();
    let Some(name) = last_segment(&ty).map(|segment| segment.ident.clone()) else {
        errors.on(&ty, "a chare is a struct or an enum of yours: write `impl MyType { .. }`");
        return None;
    };
    let owns_its_state = refuse_lifetimes(block, errors);

    let mut generics = block.generics.clone();
    ReplaceSelf(&ty).visit_generics_mut(&mut generics);
    let cfgs = only(&block.attrs, "cfg");
    let index = options.index.map(|index| ReplaceSelf(&ty).lifted(&index));
    if let Some(listed) = options.types.first()
        && generics.params.is_empty()
    {
        errors
            .on(listed, "`types` lists the types of a generic chare, and this one is not generic: remove it");
    }
    let constructor = read_constructor(&methods.constructors, &ty, errors);
    let migrated = methods.hooks.first().and_then(|method| read_hook(method, &ty, errors));
    for (method, _) in &methods.entries {
        refuse_reserved(&method.sig.ident, index.is_some(), errors);
    }
    let entries = read_entries(methods.entries, block, &ty, errors);
    let chare = Chare {
        name,
        generics,
        cfgs,
        index,
        types: options.types,
        keep_after_panic: options.keep_after_panic,
        constructor: constructor?,
        migrated,
        entries,
        ty,
    };
    owns_its_state.then_some(chare)
}

/// Whether the chare's type has no lifetimes; each one is reported.
fn refuse_lifetimes(block: &ItemImpl, errors: &mut Errors) -> bool {
    struct Lifetimes<'a>(Vec<&'a Lifetime>);
    impl<'a> Visit<'a> for Lifetimes<'a> {
        fn visit_lifetime(&mut self, lifetime: &'a Lifetime) {
            self.0.push(lifetime);
        }
    }
    let declared = block.generics.lifetimes().map(|param| &param.lifetime);
    let mut found = Lifetimes(declared.collect());
    if found.0.is_empty() {
        found.visit_type(&block.self_ty);
        found.0.retain(|lifetime| lifetime.ident != "static");
    }
    for lifetime in &found.0 {
        errors.on(
            lifetime,
            "a chare owns its state, as it lives and moves on its own: its type has no lifetimes",
        );
    }
    found.0.is_empty()
}

fn read_constructor(found: &[ImplItemFn], chare: &Type, errors: &mut Errors) -> Option<Constructor> {
    let Some((method, others)) = found.split_first() else {
        errors.on(
            chare,
            "a chare needs a constructor: write `fn new(cx: &Cx<Self>) -> Self` in this block; its arguments are \
             those of `create`",
        );
        return None;
    };
    for other in others {
        errors.on(&other.sig.ident, "a second `new`: a chare has one constructor; branch inside it");
    }
    let before = errors.count();
    let signature = &method.sig;
    signature::check_qualifiers(signature, Method::New, errors);
    let params = signature::new_params(signature, errors);
    let inputs = signature::inputs(&params, Method::New, None, chare, errors);
    let returns = signature::new_return(signature, chare, errors);
    (errors.count() == before && others.is_empty()).then(|| Constructor {
        span: signature.ident.span(),
        is_async: signature.asyncness.is_some(),
        inputs,
        returns,
    })
}

fn read_hook(method: &ImplItemFn, chare: &Type, errors: &mut Errors) -> Option<Hook> {
    let before = errors.count();
    let signature = &method.sig;
    let name = &signature.ident;
    signature::check_qualifiers(signature, Method::Entry, errors);
    let (mode, params) = signature::entry_receiver(signature, chare, errors)?;
    let inputs = signature::inputs(&params, Method::Entry, Some(&mode), chare, errors);
    let returns_nothing = matches!(signature.output, syn::ReturnType::Default);
    if errors.count() == before && !(matches!(mode, Mode::Plain) && inputs.args.is_empty() && returns_nothing)
    {
        errors.on(
            name,
            "`migrated` is called when the chare has moved to another PE: write `fn migrated(&mut self, cx: &Cx<Self>)`, \
             or rename it",
        );
    }
    (errors.count() == before).then(|| Hook { span: name.span(), takes_cx: inputs.takes_cx })
}

fn read_entries(
    methods: Vec<(ImplItemFn, EntryOptions)>,
    block: &ItemImpl,
    chare: &Type,
    errors: &mut Errors,
) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (method, options) in methods {
        let Some(entry) = read_entry(&method, options, chare, errors) else {
            continue;
        };
        // Two methods of one name: the compiler refuses the user's own block, and says it best.
        let same =
            |other: &Entry| other.name == entry.name && (entry.cfgs.is_empty() || other.cfgs.is_empty());
        if entries.iter().any(same) {
            continue;
        }
        if let Some(taken) = constant_is_taken(&entry, &entries, block) {
            errors.on(&entry.name, taken);
        } else {
            entries.push(entry);
        }
    }
    entries
}

fn read_entry(
    method: &ImplItemFn,
    options: EntryOptions,
    chare: &Type,
    errors: &mut Errors,
) -> Option<Entry> {
    let before = errors.count();
    let signature = &method.sig;
    let name = signature.ident.clone();
    signature::check_qualifiers(signature, Method::Entry, errors);
    let (mode, params) = signature::entry_receiver(signature, chare, errors)?;
    let inputs = signature::inputs(&params, Method::Entry, Some(&mode), chare, errors);
    let (output, returns) = signature::entry_return(&signature.output, chare, errors);
    options.service.check(signature, options.when.is_some(), errors);
    if let (Some(restart), Mode::Plain) = (&options.restart, &mode) {
        errors.on(
            restart,
            "`restart` is for coroutines, which wait at sync points: make the method `async`, or remove `restart`",
        );
    }
    let when = options.when.as_ref().and_then(|written| when::read(written, &inputs, chare, errors));
    (errors.count() == before).then(|| Entry {
        name,
        docs: only(&method.attrs, "doc"),
        deprecated: only(&method.attrs, "deprecated"),
        cfgs: only(&method.attrs, "cfg"),
        mode,
        inputs,
        signature: signature::in_words(&signature.inputs, &signature.output),
        output,
        returns,
        service: options.service,
        is_restartable: options.restart.is_some(),
        when,
    })
}

fn refuse_reserved(name: &Ident, is_element: bool, errors: &mut Errors) {
    let is_in = |names: &[&str]| names.iter().any(|reserved| name == reserved);
    let whose = if is_in(RESERVED) {
        "every proxy or call"
    } else if is_element && is_in(RESERVED_BY_ARRAYS) {
        "every proxy of an array"
    } else {
        return;
    };
    errors.on(
        name,
        format!(
            "`{name}` is a method of {whose}, so an entry of that name would never be reached: rename it"
        ),
    );
}

/// The name of the constant for an entry method: `SAY_HI` for `say_hi`.
pub(crate) fn constant_name(entry: &Ident) -> Ident {
    Ident::new(&entry.unraw().to_string().to_uppercase(), entry.span())
}

/// Why the constant of `entry` cannot be generated, if so. (Methods under `#[cfg]` may exclude each other, which the
/// compiler will find out.)
fn constant_is_taken(entry: &Entry, others: &[Entry], block: &ItemImpl) -> Option<String> {
    let constant = constant_name(&entry.name);
    let name = &entry.name;
    let clash = others.iter().find(|other| constant_name(&other.name) == constant);
    if let Some(other) = clash.filter(|other| entry.cfgs.is_empty() || other.cfgs.is_empty()) {
        let other = &other.name;
        return Some(format!(
            "the entry methods `{other}` and `{name}` both get the constant `{constant}`: rename one of them"
        ));
    }
    let written =
        block.items.iter().any(|item| matches!(item, ImplItem::Const(item) if item.ident == constant));
    written.then(|| {
        format!(
            "`#[chare]` makes a constant `{constant}` for the entry method `{name}`, and there is one already: rename \
             one of them"
        )
    })
}

fn only(attributes: &[Attribute], name: &str) -> Vec<Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident(name)).cloned().collect()
}
