//! The attributes of `chare`: what a user writes on an `impl` block, a method, `main` or a test.
//!
//! This crate is apart because attributes must be; it knows the *shape* of the runtime's types and none of the
//! runtime. Everything that it generates is safe code on the public items of `::chare` and on the few helpers in
//! `::chare::__private`.
//!
//! An `impl` block passes three stages: `parse` reads the tokens and refuses every misuse in the user's words (all
//! of them in one go), `ir` is what is left when nothing is wrong, and `codegen` turns that into items. An entry
//! method that was refused is left out and the rest of the block is generated all the same, so that one mistake does
//! not drown in errors about proxies that do not exist.

mod codegen;
mod errors;
mod ir;
mod launch;
mod options;
mod parse;
mod remote;
mod service;
mod signature;
mod types;
mod when;
mod wire;

use proc_macro::TokenStream;
use quote::quote;

/// Makes a type a chare: goes on its `impl` block.
///
/// Options: `index = T` makes the type an element of arrays that are indexed by `T` (without it, it serves as
/// singleton and as group); `keep_after_panic` lets the object live on after a panic in one of its entry methods;
/// `types = [Block<f32>, Block<f64>]` says, of a generic chare, which of its types may be used in several processes: they
/// have to be known when the program is linked.
///
/// The block has one constructor `fn new` (or `async fn new`), which may take `cx: &Cx<Self>` first and returns
/// `Self` or `Result<Self, E>`. A method with `#[entry]` can be called by message. Its receiver says how it interleaves
/// with other messages:
///
/// | signature | meaning |
/// |---|---|
/// | `fn(&mut self, ..)`, `fn(&self, ..)` | runs to completion |
/// | `async fn(&mut self, ..)`, `async fn(&self, ..)` | exclusive coroutine: other messages wait until it ends |
/// | `async fn(this: This<Self>, ..)` | interleaving coroutine: state only inside `this.with(..)` |
///
/// After `self` a method may take `cx: &Cx<Self>`; all other parameters, and what it returns, are owned: they are
/// moved to another PE, or encoded and sent to another process. A returned `Result` arrives flat: its `Err` becomes
/// the error of the call.
///
/// Arguments are moved through the stack of their PE, several times where the compiler does not optimise: what is larger
/// than some 100 KiB is better given as a `Vec`, a `Box` or a `chare::Shared`. PE 0 is the main thread, with the stack that
/// the system gives it (8 MiB mostly); the others have 16 MiB.
///
/// Names that proxies have already (`at`, `on`, `send`, `gather`, ..) are refused as entry names.
///
/// For a type `Hello` with an entry method `say_hi` this generates `trait HelloEntries`, whose `say_hi` is the call on
/// every proxy of `Hello`, and `Hello::SAY_HI`, the method's name as a value, for callbacks.
#[proc_macro_attribute]
pub fn chare(options: TokenStream, item: TokenStream) -> TokenStream {
    let parse::Parsed { block, chare, errors } = parse::chare(options.into(), item.into());
    let generated = chare.as_ref().map(codegen::chare);
    let errors = errors.into_compile_errors();
    quote!(#block #generated #errors).into()
}

/// Marks a method of a `#[chare]` block as callable by message.
///
/// Options say how calls of it are served:
///
/// | option | meaning |
/// |---|---|
/// | `expedited` | calls go before all messages that wait on the chare's PE and are not expedited |
/// | `priority = -3` | they go by this priority, of which lower ones are first; without it they have 0 |
/// | `inline` | a call on the chare's own PE runs at once, on the stack of its caller, if the chare is free; else it is a message |
/// | `local` | calls are made on the chare's own PE only, and run there as `inline` ones do; from elsewhere they bring an error |
///
/// A call's own `.priority(..)` or `.expedited()` counts instead of the entry's.
///
/// Methods that are `inline` or `local` run to completion, so they are no coroutines. A chare is free when no method of it
/// is running, directly or further down the stack, no exclusive coroutine owns it, and it is constructed. Behind 32 calls
/// on one stack the next goes as a message, so the stack does not overflow. `.now()` brings the value of such a call without a
/// wait, or says why it cannot run now. Broadcasts and callbacks of an inline entry are like any others. A local entry is called on one chare: there are no broadcasts of it and no callbacks
/// to it.
///
/// A coroutine that is declared `restart` may be dropped at its sync points, `cx.sync_point().await`, and its entry be started again
/// with the same arguments, which are `Clone`; its progress is in `self`.
///
/// With a condition, `when`, a call is kept until it holds:
///
/// | option | the condition |
/// |---|---|
/// | `when = \|s: &Self\| ..` | is on the state alone, and looked at once for all calls that wait |
/// | `when = \|s: &Self, a: &A, b: &B\| ..` | is on the state and all arguments, and looked at for each call |
/// | `when(self.tag == argument)` | is that a field equals an argument or a field of one (either way round), whose type is `Eq`, `Hash` and `Clone`; calls are found by hash |
///
/// Conditions run on the chare's PE and should only look: what they change in cells or elsewhere makes nobody look again.
///
/// `#[chare]` reads and removes it; what is left of it elsewhere is a mistake and says so.
#[proc_macro_attribute]
pub fn entry(_options: TokenStream, item: TokenStream) -> TokenStream {
    let error = syn::Error::new(
        proc_macro2::Span::call_site(),
        "`#[entry]` marks a method inside a `#[chare]` block: write `#[chare]` on the `impl` block around it",
    )
    .into_compile_error();
    let item = proc_macro2::TokenStream::from(item);
    quote!(#error #item).into()
}

/// Makes code that can be sent to a chare: `remote!(|state: &mut MyChare, n: u64| ..)`, or `remote!(name)` of a function
/// with `#[chare::remote]`. In `chare::prelude` it is called `remote!`.
///
/// The first parameter is the chare, `&mut MyChare` or `&MyChare`; after it there may be `cx: &Cx<MyChare>`, and then
/// owned arguments, all of them with their types. The closure captures nothing: what it needs it takes as arguments.
#[proc_macro]
pub fn remote_code(code: TokenStream) -> TokenStream {
    remote::code(code.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a function that can be sent to a chare, by `remote!` with its name: goes on a `fn` whose first parameter is the
/// chare, `&mut MyChare` or `&MyChare`.
///
/// After the chare it may take `cx: &Cx<MyChare>`, and then owned arguments. A `Result` that it returns arrives flat. It
/// can still be called like any function.
#[proc_macro_attribute]
pub fn remote(options: TokenStream, item: TokenStream) -> TokenStream {
    let function = proc_macro2::TokenStream::from(item);
    let generated =
        remote::function(options.into(), function.clone()).unwrap_or_else(syn::Error::into_compile_error);
    quote!(#function #generated).into()
}

/// Makes `async fn main(rt: Runtime) -> Result<()>` the program: it reads the options of the command line (`--pes`,
/// `--device`, ..), starts the runtime on every rank and maps the report of the run to an exit code.
///
/// The parameter `rt` may be left out.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    launch::main(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes `async fn t(rt: Runtime)` (which may return a `Result`) a `#[test]` that runs on a runtime of its own.
///
/// Options: `pes = 4` sets the number of PEs (2 unless told); `pes = [1, 2, 4]` makes a module named after the
/// function with one test for each count (`t::pes_1`, `t::pes_2`, ..); `device = "host:2"` sets the devices, in the
/// words of the command line. `#[should_panic]` and `#[ignore]` mean what they mean on a plain test.
///
/// A test fails unless its run ends well. One that is about another end looks at the `ExitReport` itself:
/// `ends = |report| assert_eq!(report.code(), 3)`, or `ends = function`. Of several processes it is asked where the reason arose.
///
/// `seeds = 200` runs the test in the simulator, once for each seed from 0; `seeds = "200:processes=4:migrate=10"` with what
/// `--sim` takes behind the seed. A seed that fails is named, with the command that runs it again:
/// `CHARE_SEED=17 cargo test ..`; `CHARE_SEED=17:trace` tells each step. `CHARE_SIM_SEEDS=200` in the environment does so with
/// tests that do not ask for it, but for those that say why they cannot be simulated, `unsimulated = "it starts a thread"`. Where nothing is
/// said of `processes=`, seeds take turns: the PEs in one process, and in as many as divide their number, unless the test says why not,
/// `one_process = "its chares share memory"`.
///
/// With chare's feature `mpi`, `mpirun -n 2 target/debug/deps/my_tests-0123456789abcdef --test-threads=1` spreads the PEs of each test over the
/// processes, if their number divides that of the PEs; other tests run in the first process, as do those that say why they must,
/// `one_process = "it shares a static"`. A process that does not come to the end of a test within `CHARE_TEST_SECONDS` (120) ends all.
#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    launch::test(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
