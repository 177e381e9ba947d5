//! The rules of this repository that neither the compiler nor clippy checks: what a file opens with, how long it is
//! and what it is called, where `unsafe` may live, and which package may know which.
//!
//! A rule that makes the code worse is changed here, with the reason in the commit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only files with `unsafe`, and why each cannot do without.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("benches/create.rs", "a global allocator that counts bytes"),
    ("benches/device_launch/raw.rs", "calls the driver's functions as they are"),
    ("benches/prk/rows.rs", "calls code for instructions that were found at run time"),
    ("benches/src/taskbench/kernel.rs", "calls code for instructions that were found at run time"),
    (
        "core/src/cell.rs",
        "a chare's allocation, addressed by pointer, becomes references to its state only here",
    ),
    ("core/macros/src/codegen.rs", "an exclusive coroutine is started with the token of its chare's state"),
    ("core/src/collection/directory.rs", "a message finds its collection without counting borrows"),
    ("core/src/current.rs", "the thread-local pointer to the PE that is running"),
    ("core/src/entry.rs", "an exclusive coroutine gets the token of its chare's state"),
    ("core/src/job/hostile.rs", "an allocator that counts the bytes of a test"),
    ("core/src/job/straight.rs", "says which memory of devices the network may send from and receive to"),
    ("core/src/known.rs", "a value behind `dyn` becomes a reference to what it is known to be"),
    ("core/src/message.rs", "a message is one allocation that moves by pointer"),
    ("core/src/process.rs", "a message is given to an inbox"),
    ("core/src/runtime.rs", "the reader of an inbox goes to its PE's thread"),
    ("core/src/scheduler/block.rs", "free lists of raw blocks"),
    ("core/src/scheduler/inbox.rs", "a lock-free queue linked through its messages"),
    (
        "core/src/scheduler/loom_tests.rs",
        "drives the inbox through its own interface under the model checker",
    ),
    ("core/src/scheduler/pe.rs", "messages and blocks are freed on their PE"),
    ("core/src/scheduler/prefetch.rs", "asking for memory is an instruction of the processor"),
    ("core/src/scheduler/slots.rs", "a slot points to its coroutine's block"),
    ("core/src/scheduler/task.rs", "a coroutine is polled in place in its block"),
    ("core/src/scheduler/thread.rs", "a message is taken out of the inbox by pointer"),
    ("core/src/scheduler/waker.rs", "a waker is one word, not a counted reference"),
    ("device/examples/cublas.rs", "calls the functions of a library that is loaded"),
    ("device/src/account.rs", "a plain launch is a call with views"),
    (
        "device/src/args.rs",
        "what a kernel may be given is decided here, not by implementing a trait elsewhere",
    ),
    ("device/src/backend.rs", "declares how device memory is released; names of memory change threads"),
    ("device/src/buffer.rs", "which memory holds elements of which type is promised by a trait"),
    ("device/src/cuda/backend.rs", "copies and launches touch memory after the call has returned"),
    ("device/src/cuda/compile.rs", "calls the functions of NVRTC"),
    ("device/src/cuda/functions.rs", "hands compiled code of a program's to the driver"),
    ("device/src/cuda/graph.rs", "a replayed graph touches the memory that was recorded"),
    ("device/src/cuda/kernel.rs", "a launch is given what its caller says that the kernel takes"),
    ("device/src/cuda/nvml.rs", "calls the functions of NVML"),
    ("device/src/cuda/pinned.rs", "the host sees pinned memory as a slice"),
    ("device/src/cuda/raw/code.rs", "calls the driver's functions for modules and graphs"),
    ("device/src/cuda/raw/context.rs", "calls the driver's functions for contexts"),
    ("device/src/cuda/raw/memory.rs", "calls the driver's functions for memory, and owns it"),
    ("device/src/cuda/raw/mod.rs", "calls the driver's functions for devices, and owns its handles"),
    ("device/src/cuda/raw/stream.rs", "calls the driver's functions for streams and events"),
    ("device/src/cuda/replay.rs", "a replay touches memory after the call has returned"),
    ("device/src/cuda/stream.rs", "copies touch memory after the call has returned"),
    (
        "device/src/graph/formal.rs",
        "what a kernel of a graph may be given is decided here, not by implementing a trait elsewhere",
    ),
    ("device/src/host/mod.rs", "device memory of the host backend is allocated by layout"),
    ("device/src/host/polled.rs", "addresses of device memory change threads"),
    ("device/src/host/run.rs", "operations are carried out on raw memory"),
    ("device/src/host/workers.rs", "takes device memory back"),
    ("device/src/host_vec.rs", "pooled host memory is seen as a slice"),
    ("device/src/kernel/mod.rs", "a function without captures is made again from its type"),
    ("device/src/operation.rs", "addresses of host memory change threads"),
    ("device/src/param.rs", "a kernel's Rust source sees raw device memory as slices"),
    ("device/src/pool.rs", "gives free device memory back"),
    ("device/src/transfer.rs", "host memory is filled and read in place"),
    ("device/src/wgpu/driver.rs", "what was downloaded is copied to host memory"),
    ("device/src/wgpu/mod.rs", "device memory and host memory are released"),
    ("device/src/wgpu/record.rs", "what is uploaded is copied from host memory"),
    ("device/tests/cuda/compile.rs", "launches a kernel with the parameters that it takes"),
    ("device/tests/cuda/enqueue.rs", "calls the driver as a user's code does"),
    ("device/tests/cuda/graph.rs", "records a kernel with the parameters that it takes"),
    ("device/tests/cuda/order.rs", "launches kernels, and calls the driver as a user's code does"),
    ("device/tests/cuda/setting.rs", "launches kernels with the parameters that they take"),
    ("device/tests/stand_in/driver.rs", "calls the driver's functions as they are"),
    ("device/tests/stand_in/kernels.rs", "runs a kernel's Rust source on memory of the stand-in"),
    ("device/tests/stand_in/main.rs", "calls the driver's functions as they are"),
    ("device/tests/stand_in/misuse.rs", "calls the driver's functions wrongly on purpose"),
    ("device/tests/counting/mod.rs", "a global allocator that counts"),
    ("device/tests/wakers.rs", "a waker whose clones run code of its own is made from a table"),
    ("kernels/src/jacobi3d/avx2.rs", "vector instructions on rows that are addresses"),
    ("kernels/src/jacobi3d/sweep.rs", "calls code for instructions that were found at run time"),
    ("kernels/tests/cuda_c/main.rs", "calls kernels that a compiler of C++ has made"),
    ("tests/cuda-stand-in/src/api/memory.rs", "pinned memory is allocated by layout"),
    (
        "tests/cuda-stand-in/src/api/mod.rs",
        "exports C functions, which read and write through their arguments",
    ),
    ("tests/cuda-stand-in/src/door.rs", "calls the loaded library, and reads a kernel's arguments"),
    ("tests/cuda-stand-in/src/engine.rs", "copies between addresses, as a device does"),
    ("tests/cuda-stand-in/src/kernel.rs", "a kernel's code is a pointer that came through a C function"),
    ("tests/cuda-stand-in/src/memory.rs", "device memory is mapped from files"),
    ("tests/semantics/memory.rs", "a global allocator that counts bytes"),
    (
        "transport/src/batch.rs",
        "what is known of a batch lies in one block with its bytes, whose number is chosen when it is made",
    ),
    ("transport/src/buffer.rs", "memory that others fill before it is read, and vectors taken apart"),
    ("transport/src/mpi/call.rs", "calls the functions of MPI"),
    ("transport/src/mpi/exit.rs", "has a function called when the process exits"),
    ("transport/tests/mpi.rs", "has memory sent and received by address"),
    ("transport/src/mpi/network.rs", "MPI touches memory after the call has returned"),
];

/// Which of our packages a package may import, for building or for testing. One that is not listed may import any: it uses
/// public API only.
const REACH: &[(&str, &[&str])] = &[
    // The stand-in is for tests: a CUDA driver without a GPU.
    ("chare-lb", &[]),
    ("chare-device", &["chare-cuda-stand-in"]),
    ("chare-cuda-stand-in", &[]),
    ("chare-macros", &[]),
    ("chare-kernels", &["chare-device", "chare-cuda-stand-in"]),
    ("chare-transport", &[]),
    ("chare", &["chare-macros", "chare-device", "chare-transport", "chare-lb", "chare-cuda-stand-in"]),
];

/// Packages of others that only these of ours may import.
const KEPT_APART: &[(&str, &[&str])] = &[
    // What a message costs is compared with MPI's own functions.
    ("mpi", &["chare-transport", "chare-benches"]),
    ("mpi-sys", &["chare-transport"]),
    // What a launch costs is compared with the driver's own functions.
    ("cudarc", &["chare-device", "chare-benches"]),
    ("wgpu", &["chare-device"]),
    ("nvml-wrapper-sys", &["chare-device"]),
    ("syn", &["chare-macros"]),
    ("quote", &["chare-macros"]),
    ("proc-macro2", &["chare-macros"]),
];

const LONGEST_FILE_LINES: usize = 700;

/// How far above an `unsafe` its reason may begin.
const REASON_WITHIN_LINES: usize = 8;

const DRAWERS: [&str; 8] = ["util", "utils", "common", "misc", "manager", "managers", "helper", "helpers"];
const LOOSE_ENDS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const LEFT_OVER_ENDINGS: [&str; 6] = ["_old", "_bak", "_orig", "_final", "_copy", "_tmp"];

/// A file of the repository, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The text without comments and literals, line for line.
    fn code(&self) -> String {
        without_comments_and_literals(&self.text)
    }
}

fn root() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    ours.parent().expect("this package lies in a folder of the repository").to_owned()
}

/// Every file with one of these endings; build results, hidden folders and what must not compile are left out.
fn sources(endings: &[&str]) -> Vec<Source> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let relative =
                path.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && relative != "tests/ui" {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = fs::read_to_string(&path).expect("source files are UTF-8");
                found.push(Source { path: relative, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no file ends with any of {endings:?}");
    found
}

fn rust_sources() -> Vec<Source> {
    sources(&[".rs"])
}

/// Fails with all violations at once.
fn require_none(rule: &str, violations: Vec<String>) {
    assert!(violations.is_empty(), "{rule}:\n  {}\n", violations.join("\n  "));
}

#[test]
fn every_file_opens_with_what_it_decides() {
    let mute = rust_sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    require_none(
        "a file opens with `//!`: what it decides, and its invariant",
        mute.map(|s| s.path).collect(),
    );
}

#[test]
fn no_file_is_too_long() {
    let lengths = rust_sources().into_iter().map(|source| (source.text.lines().count(), source.path));
    let long = lengths.filter(|(lines, _)| *lines > LONGEST_FILE_LINES);
    let named = long.map(|(lines, path)| format!("{path}: {lines} lines"));
    require_none("a file is rarely longer than 400 lines and never than 700", named.collect());
}

#[test]
fn files_are_named_by_their_concept() {
    let is_drawer = |path: &str| {
        let words = path.trim_end_matches(".rs").split(['/', '_', '-', '.']);
        words.into_iter().any(|word| DRAWERS.contains(&word))
    };
    let drawers = rust_sources().into_iter().map(|source| source.path).filter(|path| is_drawer(path));
    require_none("a file is named by its concept, not as a drawer", drawers.collect());
}

#[test]
fn names_carry_no_history() {
    let mut violations = Vec::new();
    for source in rust_sources() {
        let stem = Path::new(&source.path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let code = source.code();
        for name in defined_names(&code).chain([stem.as_str()]) {
            if carries_history(name) {
                violations.push(format!("{}: {name}", source.path));
            }
        }
    }
    require_none("a name says what a thing is, not which attempt it was", violations);
}

#[test]
fn no_loose_ends() {
    let mut violations = Vec::new();
    for source in sources(&[".rs", ".py", ".cu", ".wgsl", ".toml", ".md"]) {
        for (index, line) in source.text.lines().enumerate() {
            if let Some(mark) = LOOSE_ENDS.iter().find(|mark| line.contains(*mark)) {
                violations.push(format!("{}:{}: {mark}", source.path, index + 1));
            }
        }
    }
    for source in rust_sources() {
        let skipped = source.code().lines().position(|line| line.contains("#[ignore"));
        violations
            .extend(skipped.map(|index| format!("{}:{}: a test that never runs", source.path, index + 1)));
    }
    require_none("what is not done is not left in the code", violations);
}

#[test]
fn unsafe_gives_its_reason() {
    let mut violations = Vec::new();
    for source in rust_sources() {
        for line in unsafe_without_reason(&source.text) {
            violations.push(format!("{}:{line}", source.path));
        }
    }
    require_none("an `unsafe` block or implementation has a `// SAFETY:` note near it", violations);
}

#[test]
fn unsafe_lives_in_few_named_files() {
    let with_unsafe: Vec<String> = rust_sources()
        .into_iter()
        .filter(|source| has_word(&source.code(), "unsafe"))
        .map(|s| s.path)
        .collect();
    let listed = |path: &String| UNSAFE_FILES.iter().any(|(listed, _)| listed == path);
    require_none(
        "`unsafe` in a file that is not listed in UNSAFE_FILES",
        with_unsafe.iter().filter(|path| !listed(path)).cloned().collect(),
    );
    let stale = UNSAFE_FILES.iter().filter(|(path, _)| !with_unsafe.iter().any(|found| found == path));
    require_none(
        "listed in UNSAFE_FILES without `unsafe`",
        stale.map(|(path, _)| path.to_string()).collect(),
    );
    let unexplained = UNSAFE_FILES.iter().filter(|(_, reason)| reason.split_whitespace().count() < 3);
    require_none(
        "listed in UNSAFE_FILES without a reason",
        unexplained.map(|(path, _)| path.to_string()).collect(),
    );
}

#[test]
fn packages_know_only_what_they_may() {
    let packages = packages();
    let mut violations = Vec::new();
    for (package, imports) in &packages {
        for import in imports {
            let reach = REACH.iter().find(|(bound, _)| bound == package);
            if packages.contains_key(import) && reach.is_some_and(|(_, may)| !may.contains(&import.as_str()))
            {
                violations.push(format!("{package} imports {import}"));
            }
            if KEPT_APART.iter().any(|(kept, homes)| kept == import && !homes.contains(&package.as_str())) {
                violations.push(format!("{package} imports {import}"));
            }
        }
    }
    require_none("a package imports what it must not know", violations);
}

#[test]
fn packages_share_the_lints() {
    let manifests =
        sources(&["Cargo.toml"]).into_iter().filter(|manifest| manifest.text.contains("[package]"));
    let unbound = manifests.filter(|manifest| !manifest.text.contains("[lints]\nworkspace = true"));
    require_none(
        "a package takes the lints of the workspace",
        unbound.map(|manifest| manifest.path).collect(),
    );
}

#[test]
fn the_checks_tell_code_from_text() {
    let text = r##"
        // unsafe in a comment /* "
        /* unsafe /* nested */ unsafe */ let s = "unsafe \" unsafe"; let r = r#"unsafe " unsafe"#;
        fn f<'a>(x: &'a str) -> char { '"' } let q = '\''; let b = b"unsafe"; let n = '\u{1F600}';
        let real = unsafe { 0 };
    "##;
    let code = without_comments_and_literals(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(code.matches("unsafe").count(), 1, "{code}");
    assert!(has_word(&code, "real") && code.contains("fn f<'a>(x: &'a str) -> char"), "{code}");
    assert!(!has_word("unsafe_op not_unsafe", "unsafe"));

    let bare = "fn f() {\n    unsafe { g() }\n}\n";
    assert_eq!(unsafe_without_reason(bare), [2]);
    let noted = "fn f() {\n    // SAFETY: g has no conditions.\n    unsafe { g() }\n}\n";
    assert!(unsafe_without_reason(noted).is_empty());
    assert_eq!(unsafe_without_reason("unsafe impl Send for A {}\nlet x = unsafe\n{ 0 };\n"), [1, 2]);
    assert!(unsafe_without_reason("type F = unsafe fn(*mut u8);\nfn f() { \"unsafe {\"; }\n").is_empty());

    for name in ["solve_v2", "BlockV3", "parse_old"] {
        assert!(carries_history(name), "{name}");
    }
    for name in ["cuMemAlloc_v2", "sm_90", "f64", "Vec3", "v", "unfold", "recv4"] {
        assert!(!carries_history(name), "{name}");
    }
    assert_eq!(defined_names("pub fn a(); struct B<T>; mod c;").collect::<Vec<_>>(), ["a", "B", "c"]);
}

/// The packages of the workspace and the names of all that each imports, for building and for testing.
fn packages() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let metadata = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs this test, so it can be run");
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata.stdout).expect("cargo describes the workspace as JSON");
    let named = |value: &serde_json::Value| value["name"].as_str().expect("everything has a name").to_owned();
    let packages = metadata["packages"].as_array().expect("a workspace has packages").iter();
    packages
        .map(|package| {
            let imports = package["dependencies"].as_array().expect("a list, if an empty one");
            (named(package), imports.iter().map(named).collect())
        })
        .collect()
}

/// The lines (from 1) with an `unsafe` block or implementation that does not say why it is sound.
fn unsafe_without_reason(text: &str) -> Vec<usize> {
    let code = without_comments_and_literals(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let next = words(line).skip(1).map(Some).chain([None]);
        // A declaration says in its documentation what callers must keep; clippy sees to that.
        let declares = |next: Option<&str>| matches!(next, Some("fn" | "trait" | "extern"));
        let is_used = words(line).zip(next).any(|(word, next)| word == "unsafe" && !declares(next));
        let near = &lines[index.saturating_sub(REASON_WITHIN_LINES)..=index];
        if is_used && !near.iter().any(|line| line.contains("SAFETY:")) {
            found.push(index + 1);
        }
    }
    found
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.filter(|word| !word.is_empty())
}

fn has_word(code: &str, word: &str) -> bool {
    words(code).any(|found| found == word)
}

/// The names that items in the code are given.
fn defined_names(code: &str) -> impl Iterator<Item = &str> {
    const DEFINES: [&str; 8] = ["fn", "struct", "enum", "trait", "mod", "type", "const", "static"];
    let pairs = words(code).zip(words(code).skip(1));
    pairs.filter(|(keyword, _)| DEFINES.contains(keyword)).map(|(_, name)| name)
}

fn carries_history(name: &str) -> bool {
    // The functions of NVIDIA's libraries are called what they are called.
    let is_of = |prefix: &str| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_uppercase()))
    };
    if is_of("cu") || is_of("nvml") {
        return false;
    }
    let unnumbered = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let numbered_version = unnumbered != name
        && (unnumbered.ends_with("_v") || unnumbered.len() > 1 && unnumbered.ends_with('V'));
    numbered_version || LEFT_OVER_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The code with every comment, string and character literal replaced by spaces, so that lines keep their numbers.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment_length(rest),
            '"' => string_length(rest),
            'r' if !code.ends_with(|letter: char| letter.is_alphanumeric() && letter != 'b') => {
                raw_string_length(rest)
            }
            '\'' => character_length(rest),
            _ => 0,
        };
        let (skipped, kept) = if length > 0 { (length, false) } else { (first.len_utf8(), true) };
        let (part, after) = rest.split_at(skipped);
        code.extend(part.chars().map(|letter| if kept || letter == '\n' { letter } else { ' ' }));
        rest = after;
    }
    code
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut position) = (0_usize, 0);
    while position < text.len() {
        let here = &text.as_bytes()[position..];
        if here.starts_with(b"/*") {
            (depth, position) = (depth + 1, position + 2);
        } else if here.starts_with(b"*/") {
            (depth, position) = (depth - 1, position + 2);
            if depth == 0 {
                return position;
            }
        } else {
            position += 1;
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    while let Some((position, letter)) = letters.next() {
        match letter {
            '\\' => {
                letters.next();
            }
            '"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"..."` or `r#"..."#`, and 0 for a word that begins with `r`.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    let start = 2 + hashes;
    text[start..].find(&closing).map_or(text.len(), |position| start + position + closing.len())
}

/// The length of a character literal, and 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |position| 3 + position + 1),
        Some((position, letter)) if text[position + letter.len_utf8()..].starts_with('\'') => {
            position + letter.len_utf8() + 1
        }
        _ => 0,
    }
}
