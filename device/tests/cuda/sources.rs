//! Every source in CUDA C of this repository compiles, for the oldest and the newest GPUs that there is code for: files, and what
//! stands in `kernel!` in Rust files and their documentation.

use std::path::{Path, PathBuf};

use chare_device::CUDA_PRELUDE;
use chare_device::cuda::{Compiler, ImageKind};

use crate::compile::has_nvrtc;

/// The oldest and the newest that NVRTC 13.0 compiles for: Turing and Blackwell.
const CAPABILITIES: [(u32, u32); 2] = [(7, 5), (12, 1)];

/// The name of kernels that are to be refused by the compiler.
const REFUSED: &str = "wrong";

/// Every file with one of these endings; build results and hidden folders are left out.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository");
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && !path.join("CACHEDIR.TAG").exists() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| endings.iter().any(|ending| extension == *ending))
            {
                found.push(path);
            }
        }
    }
    found
}

/// What stands before a source in Rust: not in one piece, since this file is read too.
const BEFORE: &str = concat!("cuda", ": \"");

/// The literals in a Rust file that are sources.
fn in_rust(text: &str) -> Vec<String> {
    // In documentation too.
    let lines =
        text.lines().map(|line| line.trim_start().trim_start_matches("/// ").trim_start_matches("//! "));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.split(BEFORE).skip(1).map(literal).collect()
}

/// A string literal without its first quote, up to its last.
fn literal(text: &str) -> String {
    let (mut value, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => match letters.next() {
                // The end of a line: the text goes on with the next word.
                Some('\n') => letters = letters.as_str().trim_start().chars(),
                Some('n') => value.push('\n'),
                other => value.extend(other),
            },
            other => value.push(other),
        }
    }
    value
}

#[test]
fn every_source_compiles() {
    if !has_nvrtc() {
        return;
    }
    let compiler = Compiler::new(None, ImageKind::Cubin);
    let mut counts = [0; 2];
    for path in files(&["cu", "rs"]) {
        let text = std::fs::read_to_string(&path).expect("readable");
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        for source in if is_rust { in_rust(&text) } else { vec![text] } {
            counts[usize::from(is_rust)] += 1;
            let is_refused = source.contains(&format!("KERNEL {REFUSED}("));
            for capability in CAPABILITIES {
                let text = format!("{CUDA_PRELUDE}\n#line 1 \"{}\"\n{source}", path.display());
                match compiler.compile(REFUSED, &text, &[], capability) {
                    Ok(_) => assert!(!is_refused, "{}: a kernel `{REFUSED}` compiles", path.display()),
                    Err(error) => assert!(is_refused, "{}: {error}", path.display()),
                }
            }
        }
    }
    let [files, literals] = counts;
    assert!(files > 0 && literals > 0, "{files} files and {literals} literals were found");
    println!("{files} files and {literals} literals for {CAPABILITIES:?}");
}

#[test]
fn literals_are_found() {
    let documented = format!("/// {BEFORE}KERNEL a() {{\n///     b = \\\"c\\\"; }}\",");
    let text = format!("{documented}\n{BEFORE}d\\n\\\n    e\", cuda: other }}");
    assert_eq!(in_rust(&text), ["KERNEL a() {\n    b = \"c\"; }", "d\ne"]);
}
