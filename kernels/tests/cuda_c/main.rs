//! The kernels in CUDA C without a GPU: compiled as C++ of the host, thread by thread, and run by the stand-in for NVIDIA's driver in the place of
//! their Rust sources. All else is the `cuda` backend: NVRTC, arguments, blocks and grids.
//!
//! Needs a compiler of C++ and NVRTC; without them it says so and passes, unless `REQUIRE_CXX=1` and `REQUIRE_NVRTC=1`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use chare_device::cuda::{Compiler, ImageKind};
use chare_device::{__KERNELS as KERNELS, CUDA_PRELUDE, parity};
use cuda_stand_in::{Field, StandIn};

/// A kernel as it is compiled: the parameters as one struct, the blocks, and the threads of a block.
type Compiled = unsafe extern "C" fn(*const u8, *const [u32; 3], *const [u32; 3]);

/// Every source of the crate.
fn sources() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cu") {
                found.push(path);
            }
        }
    }
    found
}

/// One text of C++ with all kernels, each source in a namespace of its own.
fn text() -> String {
    let host = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda_c/host.hh");
    let mut text = format!("#include \"{host}\"\n{}\n", CUDA_PRELUDE.replace("#pragma once", ""));
    for (number, path) in sources().into_iter().enumerate() {
        let source = std::fs::read_to_string(&path).unwrap();
        writeln!(text, "namespace source_{number} {{\n#line 1 \"{}\"\n{source}\n}}", path.display()).unwrap();
        for declared in KERNELS.iter().filter(|declared| source.contains(&format!(" {}(", declared.name()))) {
            let name = declared.name();
            let parameters = "const char* packed, const unsigned* grid, const unsigned* block";
            let call = format!("host::launch(source_{number}::{name}, packed, grid, block);");
            writeln!(text, "extern \"C\" void call_{name}({parameters}) {{ {call} }}").unwrap();
        }
    }
    text
}

/// The library with all kernels; `None` if there is no compiler of C++.
fn compile() -> Option<libloading::Library> {
    let required = std::env::var("REQUIRE_CXX").is_ok_and(|required| required == "1");
    if Command::new("c++").arg("--version").output().is_err() {
        assert!(!required, "REQUIRE_CXX is set and c++ is not found");
        return None;
    }
    let file = |name: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (source, library) = (file("cuda_c.cpp"), file("cuda_c.so"));
    std::fs::write(&source, text()).unwrap();
    // Nothing is fused, as in the Rust sources.
    let options = ["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-ffp-contract=off"];
    let mut compiler = Command::new("c++");
    let output = compiler.args(options).arg(&source).arg("-o").arg(&library).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: loading it runs what C++ does at the start: it makes empty vectors.
    Some(unsafe { libloading::Library::new(library) }.unwrap())
}

/// Makes the compiled kernels what the stand-in runs.
fn register_all() -> Option<usize> {
    let library: &'static libloading::Library = Box::leak(Box::new(compile()?));
    let stand_in = StandIn::loaded().expect("the library on the path is the stand-in");
    // The compiled code has one set of threads.
    let turn: &'static Mutex<()> = Box::leak(Box::default());
    let ours = KERNELS.iter().filter(|declared| declared.module().starts_with("chare_kernels"));
    let mut count = 0;
    for declared in ours {
        let field = |(offset, len_bytes, is_buffer)| Field { offset, len_bytes, is_buffer };
        let mut fields: Vec<Field> = declared.layout().into_iter().map(field).collect();
        let end = fields.last().map_or(0, |last| last.offset + last.len_bytes);
        fields.push(field((end.next_multiple_of(4), 12, false)));
        let symbol = format!("call_{}", declared.name());
        // SAFETY: it was written with this type.
        let code = *unsafe { library.get::<Compiled>(symbol.as_bytes()) }.unwrap();
        stand_in.register_packed(declared.name(), &fields, move |geometry, packed| {
            let _turn = turn.lock().unwrap();
            // SAFETY: these are the parameters of the kernel, with addresses of host memory.
            unsafe { code(packed.as_ptr(), &geometry.grid, &geometry.block) };
        });
        count += 1;
    }
    Some(count)
}

const IS_APART: &str = "CHARE_TEST_IS_APART";

#[test]
fn cuda_c_does_what_rust_does() {
    if Compiler::new(None, ImageKind::Ptx).version().is_none() {
        let required = std::env::var("REQUIRE_NVRTC").is_ok_and(|required| required == "1");
        assert!(!required, "REQUIRE_NVRTC is set and libnvrtc is not found");
        println!("skipped: there is no NVRTC");
        return;
    }
    if std::env::var_os(IS_APART).is_some() {
        match register_all() {
            Some(count) => {
                assert_eq!(count, chare_kernels::cases().len());
                parity::check(&chare_kernels::cases());
            }
            None => println!("skipped: there is no compiler of C++"),
        }
        return;
    }
    // A driver is that of a process from its start.
    let inherited = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["cuda_c_does_what_rust_does", "--exact", "--nocapture"]).env(IS_APART, "1");
    again.env("LD_LIBRARY_PATH", format!("{}:{inherited}", cuda_stand_in::folder().display()));
    let output = again.env("REQUIRE_DEVICE", "cuda").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    print!("{out}");
}
