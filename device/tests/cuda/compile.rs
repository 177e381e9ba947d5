//! CUDA C: compiled by NVRTC where it is there, kept on disk, refused with line and caret.
//!
//! Without NVRTC these tests say so and pass; with `REQUIRE_NVRTC=1` they fail.

use std::path::PathBuf;

use chare_device::CUDA_PRELUDE;
use chare_device::cuda::{Code, Compiler, Cuda, CudaError, Extent, ImageKind, Parameters, Settings, ship};
use cuda_stand_in::Parameter;

use crate::apart::{apart, child};
use crate::setting::*;

const AXPY: &str = "
extern \"C\" __global__ void axpy(unsigned n, double a, const double *x, double *y) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
";

/// Whether this machine has NVRTC.
pub(crate) fn has_nvrtc() -> bool {
    let is_there = Compiler::new(None, ImageKind::Ptx).version().is_some();
    let is_required = std::env::var("REQUIRE_NVRTC").is_ok_and(|required| required == "1");
    assert!(is_there || !is_required, "REQUIRE_NVRTC is set and libnvrtc is not found");
    if !is_there {
        println!("skipped: there is no NVRTC");
    }
    is_there
}

/// An empty folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("chare-cuda-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Folder(folder)
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten();
        entries.map(|entry| entry.expect("readable").path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn compiled_code_is_loaded_and_launched() {
    for kind in [ImageKind::Ptx, ImageKind::Cubin] {
        apart("compile::compiled_code_is_loaded_and_launched", &[], || {
            if !has_nvrtc() {
                return;
            }
            let cuda = Cuda::open(Settings { image: kind, ..settings() }).expect("it opens");
            let gpu = cuda.gpu(0);
            let stream = stream(&gpu);
            let numbers = Parameter::Address { align: 8 };
            let parameters = [Parameter::Value { bytes: 4 }, Parameter::Value { bytes: 8 }, numbers, numbers];
            stand_in().register("axpy", &parameters, |geometry, arguments| {
                let n = arguments.value::<u32>(0) as usize;
                assert!((geometry.grid[0] * geometry.block[0]) as usize >= n);
                let (x, y) = (arguments.slice::<f64>(2, n)?, arguments.slice::<f64>(3, n)?);
                y.iter_mut().zip(x).for_each(|(y, x)| *y += arguments.value::<f64>(1) * *x);
                Ok(())
            });
            let code = Code::Source { text: AXPY, options: &["--fmad=false"] };
            let axpy = gpu.kernel("axpy", code).expect("it compiles");
            assert!(std::sync::Arc::ptr_eq(&axpy, &gpu.kernel("axpy", code).expect("it is there")));
            let x = block_of(&cuda, &stream, 100, 2.5_f64.to_bits());
            let y = block_of(&cuda, &stream, 100, 1.0_f64.to_bits());
            let mut arguments = Parameters::new();
            arguments.push(100_u32).push(2.0_f64).push_block(&x).push_block(&y);
            // SAFETY: these are its parameters.
            unsafe { stream.launch(&axpy, &Extent::new(100, 1, 1), &arguments, &[&x, &y]) }
                .expect("a launch");
            assert!(holds(&cuda, &stream, &y, 6.0_f64.to_bits()));
        });
    }
}

#[test]
fn errors_have_line_and_caret() {
    apart("compile::errors_have_line_and_caret", &[], || {
        if !has_nvrtc() {
            return;
        }
        let wrong = AXPY.replace("y[i] +=", "z[i] +=");
        let cuda = open();
        let error = cuda.gpu(0).kernel("axpy", Code::Source { text: &wrong, options: &[] });
        let message = error.err().expect("it does not compile").to_string();
        assert!(
            message.starts_with("kernel `axpy` does not compile for sm_90:\naxpy.cu(4): error:"),
            "{message}"
        );
        assert!(message.contains("identifier \"z\" is undefined") && message.contains('^'), "{message}");
    });
}

#[test]
fn code_without_the_kernel_is_refused() {
    apart("compile::code_without_the_kernel_is_refused", &[], || {
        if !has_nvrtc() {
            return;
        }
        let cuda = open();
        // Without `extern "C"` the name is mangled.
        let text = "__global__ void lost() {}";
        let message =
            cuda.gpu(0).kernel("lost", Code::Source { text, options: &[] }).err().expect("no such kernel");
        assert!(message.to_string().contains("no kernel `lost`; declare it `extern \"C\""), "{message}");
    });
}

#[test]
fn compiled_code_is_kept() {
    if !has_nvrtc() {
        return;
    }
    let folder = Folder::new("kept");
    let compile = |source: &str, options: &[&str], capability| {
        let compiler = Compiler::new(Some(folder.0.clone()), ImageKind::Cubin);
        compiler.compile("axpy", source, options, capability)
    };
    let first = compile(AXPY, &[], (9, 0)).expect("it compiles");
    let [entry] = &folder.entries()[..] else { panic!("{:?}", folder.entries()) };
    let written = std::fs::read(entry).expect("readable");
    assert_eq!(compile(AXPY, &[], (9, 0)).expect("it is there"), first);
    // A spoiled entry is as none, and is written anew.
    std::fs::write(entry, &written[..written.len() - 9]).expect("writable");
    assert_eq!(compile(AXPY, &[], (9, 0)).expect("it compiles"), first);
    assert_eq!(std::fs::read(entry).expect("readable").len(), written.len());
    // Everything that the code depends on makes another entry.
    compile(AXPY, &["--fmad=false"], (9, 0)).expect("it compiles");
    compile(AXPY, &[], (8, 0)).expect("it compiles");
    compile(&AXPY.replace("a *", "-a *"), &[], (9, 0)).expect("it compiles");
    assert_eq!(folder.entries().len(), 4);
    assert!(compile("nonsense", &[], (9, 0)).is_err() && folder.entries().len() == 4);
}

#[test]
fn code_that_reads_other_files_is_not_kept() {
    if !has_nvrtc() {
        return;
    }
    let (folder, headers) = (Folder::new("not-kept"), Folder::new("headers"));
    std::fs::create_dir_all(&headers.0).expect("writable");
    let header = headers.0.join("factor.cuh");
    let (search, before) = (format!("-I{}", headers.0.display()), format!("-include={}", header.display()));
    let source = AXPY.replace("a *", "FACTOR *");
    for (source, options) in
        [(format!("  # include \"factor.cuh\"\n{source}"), [search.as_str()]), (source, [before.as_str()])]
    {
        let compile = |factor: &str| {
            std::fs::write(&header, format!("#define FACTOR {factor}\n")).expect("writable");
            let compiler = Compiler::new(Some(folder.0.clone()), ImageKind::Ptx);
            compiler.compile("axpy", &source, &options, (9, 0)).expect("it compiles")
        };
        assert_ne!(compile("3.0"), compile("5.0"), "{options:?}");
        assert!(folder.entries().is_empty());
    }
}

#[test]
fn what_was_shipped_needs_no_compiler() {
    let folder = Folder::new("shipped");
    let source = "KERNEL axpy(Grid grid) {}";
    assert!(ship(&folder.0, ("axpy", source, &[]), (9, 0), b"shipped code"));
    let compiler = Compiler::new(None, ImageKind::Cubin).with_shipped(Some(folder.0.clone()));
    let compile = |source: &str, options: &[&str], capability| {
        let text = format!("{CUDA_PRELUDE}\n#line 1 \"axpy.cu\"\n{source}");
        compiler.compile("axpy", &text, options, capability)
    };
    assert_eq!(compile(source, &[], (9, 0)).expect("it is there").bytes(), b"shipped code\0");
    // It is that of this source, with no options, on such devices.
    for other in
        [compile("nonsense", &[], (9, 0)), compile(source, &["-G"], (9, 0)), compile(source, &[], (8, 0))]
    {
        assert!(other.map_or(true, |image| image.bytes() != b"shipped code\0"));
    }
}

#[test]
fn a_device_newer_than_the_compiler_gets_ptx() {
    if !has_nvrtc() {
        return;
    }
    let image =
        Compiler::new(None, ImageKind::Cubin).compile("axpy", AXPY, &[], (99, 0)).expect("it compiles");
    assert!(String::from_utf8_lossy(image.bytes()).contains(".entry axpy"));
}

#[test]
fn without_a_compiler_the_error_says_what_to_do() {
    let name = "compile::without_a_compiler_the_error_says_what_to_do";
    if std::env::var_os("CHARE_TEST_IS_APART").is_some() {
        let refused = Compiler::new(None, ImageKind::Cubin).compile("axpy", AXPY, &[], (9, 0));
        match refused {
            Err(error @ CudaError::NoCompiler { .. }) => println!("said: {error}"),
            other => println!("said: this machine has NVRTC: {}", other.is_ok()),
        }
        return;
    }
    let output = child(name, &[]).env_remove("LD_LIBRARY_PATH").output().expect("it can be started again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_clear = said.contains("there is no NVRTC") && said.contains("pip install nvidia-cuda-nvrtc");
    assert!(is_clear || said.contains("said: this machine has NVRTC: true"), "{said}");
}
