//! The code that may cross processes, in one table of the whole program: entry methods and remote functions.
//!
//! `#[chare]`, `remote!` and `#[chare::remote]` each add rows to [`ROWS`] where they stand, and the linker puts them side
//! by side, in an order that differs between builds. So nothing depends on it: an id is a hash of what the row says, and
//! the table is sorted. Invariant: a [`CodeTable`] holds every id once. Nothing here is looked at by a call inside of the
//! process, which knows its code by type.

use std::any::{TypeId, type_name};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use serde::{Deserialize, Serialize};

use crate::broadcast::Copies;
use crate::chares::Chare;
use crate::entry::Entry;
use crate::guard::UnderGuard;
use crate::ids::ChareId;
use crate::message::Msg;
use crate::remote::{Site, Wanted};
use crate::wire::{self, Decoder, Kind, WireError};

/// Every row of the program, as the linker has found them. `#[chare]` and `remote!` add to it.
#[linkme::distributed_slice]
pub static ROWS: [&'static [Row]];

/// One piece of code, as it is known when the program is compiled.
pub struct Row {
    kind: CodeKind,
    /// The path of the chare's type, or of the type that stands for the function.
    path: fn() -> &'static str,
    /// The method; the name that reports give to a call of a remote function.
    pub(crate) name: &'static str,
    signature: &'static str,
    place: Place,
    /// Tells what stands at one place apart: a macro of the user's may put several things there.
    salt: u64,
    means: Means,
}

/// How its messages are made, when they have come from another process.
enum Means {
    /// By its type, and what broadcasts of it do.
    Typed(Decode, fn() -> Option<&'static Copies>),
    /// By code that knows the function.
    Remote(fn(&mut Wanted<'_, '_>)),
}

/// Makes a message of a kind, for a chare, of what is left of its bytes.
type Decode = fn(Kind, ChareId, &mut Decoder<'_>) -> Result<Msg, WireError>;

/// Where something stands in the user's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: &'static str,
    /// Its line.
    pub line: u32,
    /// The column in it.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

#[cold]
fn unknown(id: CodeId) -> WireError {
    WireError::new(format!("the program has no code with the number {id:?}"))
}

impl Row {
    /// The row of an entry method; `signature` is as the user has written it.
    pub const fn entry<E: Entry>(signature: &'static str, column: u32) -> Row {
        Row {
            kind: CodeKind::Entry,
            path: type_name::<E::Chare>,
            name: E::INFO.name,
            signature,
            place: Place { file: E::INFO.file, line: E::INFO.line, column },
            salt: 0,
            means: Means::Typed(wire::decode_call_of::<E>, E::copies),
        }
    }

    /// The row of a type of chare: of what makes them.
    pub const fn chare<C: Chare>(signature: &'static str, column: u32) -> Row {
        Row {
            kind: CodeKind::Chare,
            path: type_name::<C>,
            name: "new",
            signature,
            place: Place { file: C::INFO.file, line: C::INFO.line, column },
            salt: 0,
            means: Means::Typed(C::decode, || None),
        }
    }

    /// The code with this number.
    #[inline(always)]
    pub(crate) fn find(id: CodeId) -> Result<&'static Row, WireError> {
        static ROWS_BY_ID: OnceLock<FxHashMap<CodeId, &'static Row>> = OnceLock::new();
        let rows = || ROWS.iter().copied().flatten().map(|row| (row.id(), row)).collect();
        let row = ROWS_BY_ID.get_or_init(rows).get(&id);
        row.copied().ok_or_else(|| unknown(id))
    }

    /// The row of a remote function (`kind` says which) that the type `P` stands for.
    pub const fn remote<P: Site>(
        kind: CodeKind,
        name: &'static str,
        signature: &'static str,
        salt: u64,
        place: Place,
        code: fn(&mut Wanted<'_, '_>),
    ) -> Row {
        Row { kind, path: type_name::<P>, name, signature, place, salt, means: Means::Remote(code) }
    }

    /// Makes a message of it that came from another process.
    #[inline(always)]
    pub(crate) fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        match self.means {
            Means::Typed(decode, _) => decode(kind, to, from),
            Means::Remote(code) if kind == Kind::Call => {
                let mut wanted = Wanted::Call(to, from, None);
                code(&mut wanted);
                match wanted {
                    Wanted::Call(_, _, Some(msg)) => msg,
                    _ => Err(WireError::stays(self.name)),
                }
            }
            Means::Remote(code) if kind == Kind::Guarded => {
                let mut wanted = Wanted::Guard(None);
                code(&mut wanted);
                match wanted {
                    Wanted::Guard(Some(guard)) => UnderGuard::decode(guard, to, from),
                    _ => Err(WireError::new(format!("{} is no guard", self.name))),
                }
            }
            Means::Remote(_) => Err(wire::misplaced(kind, self.name)),
        }
    }

    /// What broadcasts of it do, if its arguments can be cloned.
    pub(crate) fn copies(&self) -> Option<&'static Copies> {
        match self.means {
            Means::Typed(_, copies) => copies(),
            Means::Remote(code) => {
                let mut wanted = Wanted::Copies(None);
                code(&mut wanted);
                if let Wanted::Copies(copies) = wanted { copies } else { None }
            }
        }
    }

    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    /// The path of the method or function in the program.
    pub(crate) fn full_name(&self) -> String {
        let path = (self.path)();
        match self.kind {
            CodeKind::Entry | CodeKind::Chare => format!("{path}::{}", self.name),
            CodeKind::Function => path.to_owned(),
            // What stands for the closure is declared where it is.
            CodeKind::Closure => {
                let around = path.rsplit_once("::").map_or(path, |(around, _)| around);
                format!("{around}::remote!")
            }
        }
    }

    pub(crate) fn id(&self) -> CodeId {
        let name = self.full_name();
        let Place { file, line, column } = self.place;
        let mut hash = Fnv::default();
        for text in [name.as_str(), self.signature, file] {
            hash.add_text(text);
        }
        hash.add_number(u64::from(line) << 32 | u64::from(column));
        hash.add_number(self.salt);
        CodeId(hash.0)
    }

    fn code(&self) -> Code {
        Code {
            id: self.id(),
            kind: self.kind,
            name: self.full_name(),
            signature: self.signature,
            place: self.place,
        }
    }
}

/// The number of a piece of code: the same in every process that runs this program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CodeId(pub(crate) u64);

impl CodeId {
    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// That of the row of something generic, which `S` stands for; `None` if its type is not listed.
    pub fn of_generic<S: 'static>(row: impl FnOnce() -> Row) -> Option<CodeId> {
        // A static in a generic function is one for all its types.
        static KNOWN: OnceLock<RwLock<FxHashMap<TypeId, Option<CodeId>>>> = OnceLock::new();
        let known = KNOWN.get_or_init(RwLock::default);
        let read = known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = read.get(&TypeId::of::<S>()) {
            return *id;
        }
        drop(read);
        let id = Some(row().id()).filter(|id| Row::find(*id).is_ok());
        known.write().unwrap_or_else(PoisonError::into_inner).insert(TypeId::of::<S>(), id);
        id
    }
}

/// The id of one row, computed once.
pub struct CachedId(AtomicU64);

impl CachedId {
    /// Not computed yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        CachedId(AtomicU64::new(0))
    }

    /// That of this row; always the same one.
    #[inline]
    pub fn of(&self, row: impl FnOnce() -> Row) -> CodeId {
        // Relaxed: whoever finds 0 computes the same number again.
        match self.0.load(Ordering::Relaxed) {
            0 => {
                let CodeId(id) = row().id();
                self.0.store(id, Ordering::Relaxed);
                CodeId(id)
            }
            id => CodeId(id),
        }
    }
}

impl fmt::Debug for CodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeId({:016x})", self.0)
    }
}

/// What a piece of code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CodeKind {
    /// A method with `#[entry]`.
    Entry,
    /// What makes the chares of a type.
    Chare,
    /// A function with `#[chare::remote]`.
    Function,
    /// A closure in `remote!`.
    Closure,
}

/// A piece of code that may cross processes.
#[derive(Clone, Debug)]
pub struct Code {
    id: CodeId,
    kind: CodeKind,
    name: String,
    signature: &'static str,
    place: Place,
}

impl Code {
    /// Its id.
    pub fn id(&self) -> CodeId {
        self.id
    }

    /// What it is.
    pub fn kind(&self) -> CodeKind {
        self.kind
    }

    /// Its path in the program, such as `bank::Account::deposit`; for a closure that of the function around it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it takes and returns, in the words of the source.
    pub fn signature(&self) -> &'static str {
        self.signature
    }

    /// The source file.
    pub fn file(&self) -> &'static str {
        self.place.file
    }

    /// The line in the file.
    pub fn line(&self) -> u32 {
        self.place.line
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} at {}", self.name, self.signature, self.place)
    }
}

/// All code of the program that may cross processes, sorted by name.
///
/// It has the entry methods of chares that are not generic, or list their types, the functions with `#[chare::remote]` and the closures in
/// `remote!`, in whichever crate of the program they stand. Two processes whose tables have the same
/// [`hash`](CodeTable::hash) mean the same by an id.
///
/// ```
/// use chare::prelude::*;
///
/// struct Account(i64);
///
/// #[chare]
/// impl Account {
///     fn new() -> Self {
///         Account(0)
///     }
///     #[entry]
///     fn deposit(&mut self, amount: i64) {
///         self.0 += amount;
///     }
/// }
///
/// # fn main() -> std::result::Result<(), chare::SameId> {
/// let table = chare::CodeTable::of_program()?;
/// assert!(table.iter().any(|code| code.name().ends_with("::Account::deposit")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CodeTable(Vec<Code>);

impl CodeTable {
    /// The table of this program. It is made anew by each call.
    ///
    /// # Errors
    /// [`SameId`] if two pieces of code cannot be told apart. Then no run starts either.
    pub fn of_program() -> Result<CodeTable, SameId> {
        CodeTable::of(ROWS.iter().copied().flatten())
    }

    /// Whether there is a table of this program. It is looked at once, as a program does not change.
    pub(crate) fn check() -> Result<(), SameId> {
        static OUTCOME: OnceLock<Result<(), SameId>> = OnceLock::new();
        OUTCOME.get_or_init(|| CodeTable::of_program().map(drop)).clone()
    }

    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Result<CodeTable, SameId> {
        let mut codes: Vec<Code> = rows.map(Row::code).collect();
        codes.sort_unstable_by_key(|code| code.id);
        if let Some([one, other]) = codes.array_windows().find(|[one, other]| one.id == other.id) {
            return Err(SameId(Arc::new([one.clone(), other.clone()])));
        }
        codes.sort_by(|one, other| (&one.name, one.place, one.id).cmp(&(&other.name, other.place, other.id)));
        Ok(CodeTable(codes))
    }

    /// The code, sorted by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Code> {
        self.0.iter()
    }

    /// A hash of all names, places and signatures.
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv::default();
        self.0.iter().for_each(|code| hash.add_number(code.id.0));
        hash.0
    }
}

impl<'a> IntoIterator for &'a CodeTable {
    type Item = &'a Code;
    type IntoIter = std::slice::Iter<'a, Code>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Two pieces of code that have the same id: the same name at the same place.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "two pieces of code have one id, so another process could not tell them apart: {} and {}; write them on two lines, \
     or as functions of different names with `#[chare::remote]`",
    .0[0], .0[1]
)]
pub struct SameId(Arc<[Code; 2]>);

/// FNV-1a: the same in every build, on every machine.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds a text so that its end shows.
    fn add_text(&mut self, text: &str) {
        self.add_number(text.len() as u64);
        self.add(text.as_bytes());
    }

    fn add_number(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn row(name: &'static str, line: u32, salt: u64) -> Row {
        let place = Place { file: "bank.rs", line, column: 5 };
        let decode: Decode = |_, _, _| Err(WireError::stays("a test"));
        let (kind, signature) = (CodeKind::Entry, "(&mut self)");
        let means = Means::Typed(decode, || None);
        Row { kind, path: || "bank::Account", name, signature, place, salt, means }
    }

    fn hash(rows: &[Row]) -> u64 {
        CodeTable::of(rows.iter()).expect("all differ").hash()
    }

    #[test]
    fn the_order_of_rows_does_not_matter() {
        let one = [row("deposit", 1, 0), row("withdraw", 2, 0), row("close", 3, 0)];
        let other = [row("close", 3, 0), row("deposit", 1, 0), row("withdraw", 2, 0)];
        assert_eq!(hash(&one), hash(&other));
        let table = CodeTable::of(one.iter()).expect("all differ");
        let names: Vec<_> = table.iter().map(Code::name).collect();
        assert_eq!(names, ["bank::Account::close", "bank::Account::deposit", "bank::Account::withdraw"]);
    }

    #[test]
    fn each_part_of_a_row_makes_a_difference() {
        let base = hash(&[row("deposit", 1, 0)]);
        let signed = Row { signature: "(&self)", ..row("deposit", 1, 0) };
        for other in [row("deposi", 1, 0), row("deposit", 2, 0), row("deposit", 1, 1), signed] {
            assert_ne!(hash(&[other]), base);
        }
    }

    #[test]
    fn one_id_twice_is_refused_with_both_places() {
        let rows = [row("deposit", 1, 0), row("close", 2, 0), row("deposit", 1, 0)];
        let error = CodeTable::of(rows.iter()).expect_err("two are the same").to_string();
        assert_eq!(error.matches("bank::Account::deposit(&mut self) at bank.rs:1:5").count(), 2, "{error}");
    }
}
