//! What a program runs on, and what it says about it, as a user starts it: `--device`, with GPUs (a stand-in for NVIDIA's
//! driver) and without. And that it runs alone where it can do no other.

use std::path::Path;
use std::process::Command;

const EVERYWHERE: &str = env!("CARGO_BIN_EXE_everywhere");
const RUST_ONLY: &str = env!("CARGO_BIN_EXE_rust_only");

/// What a program has answered.
#[derive(Debug, PartialEq)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs a program on two PEs, with a driver in `gpus` or with none.
fn answer(program: &str, arguments: &[&str], gpus: Option<&Path>) -> Answer {
    answer_of(Command::new(program), arguments, gpus)
}

fn answer_of(mut command: Command, arguments: &[&str], gpus: Option<&Path>) -> Answer {
    command.args(["--pes", "2"]).args(arguments).env_remove("LD_LIBRARY_PATH").env_remove("CHARE_DEVICE");
    if let Some(folder) = gpus {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let output = command.output().expect("the program can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("programs print text");
    Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn answered(out: &str, err: &str) -> Answer {
    Answer { code: Some(0), out: out.to_owned(), err: err.to_owned() }
}

/// Whether programs find a driver of NVIDIA's without being told where.
fn has_driver() -> bool {
    let found = answer(EVERYWHERE, &["--device", "cuda"], None);
    found.code == Some(0) || !found.err.contains("libcuda not found")
}

const NO_DRIVER: &str =
    "no CUDA: libcuda not found; install the NVIDIA driver, or put its library on the library path";

#[test]
fn auto_says_what_it_took_and_why() {
    if has_driver() {
        return;
    }
    let host = "runs on host:0\n42\n";
    assert_eq!(answer(EVERYWHERE, &[], None), answered(host, ""), "nobody has asked");
    let said = format!("--device auto: the host: {NO_DRIVER}\n");
    assert_eq!(answer(EVERYWHERE, &["--device", "auto"], None), answered(host, &said));
    assert_eq!(answer(EVERYWHERE, &["--device", "auto", "--quiet"], None), answered(host, ""));
    let said = "--device auto: the host, since the specification says where its kernels run\n";
    assert_eq!(answer(EVERYWHERE, &["--device=auto:inline"], None), answered(host, said));
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_warns_under_its_launchers() {
    let warning = "warning: this program runs by itself in each process of `mpirun`: build it with `--features mpi` to make one job of them\n";
    for (sizes, said) in [
        (&[("OMPI_COMM_WORLD_SIZE", "4")][..], warning),
        (&[("PMI_SIZE", "2")], warning),
        (&[("PMI_SIZE", "1")], ""),
        // One that was started by the other.
        (&[("PMI_SIZE", "4"), ("OMPI_COMM_WORLD_SIZE", "1")], ""),
    ] {
        let mut command = Command::new(EVERYWHERE);
        command.envs(sizes.iter().copied());
        assert_eq!(answer_of(command, &["--device=host"], None), answered("runs on host:0\n42\n", said));
    }
}

#[test]
fn a_kind_that_is_not_there_ends_the_program_in_one_line() {
    if has_driver() {
        return;
    }
    let refused = |err: &str| Answer { code: Some(2), out: String::new(), err: format!("error: {err}\n") };
    for program in [EVERYWHERE, RUST_ONLY] {
        assert_eq!(
            answer(program, &["--device", "cuda"], None),
            refused(&format!("--device cuda: {NO_DRIVER}"))
        );
        let how = "build it with `--features wgpu`, or use `--device auto` or `host`";
        let wanted = refused(&format!("--device wgpu: this build has no `wgpu`: {how}"));
        assert_eq!(answer(program, &["--device", "wgpu"], None), wanted);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn auto_takes_gpus_that_can_run_all_kernels() {
    let gpus = cuda_stand_in::folder();
    let took = answer(EVERYWHERE, &["--device", "auto"], Some(&gpus));
    assert_eq!(took.code, Some(0), "{took:?}");
    assert!(took.out.starts_with("runs on cuda:0 (") && took.out.contains(", cuda:1 ("), "{took:?}");
    assert_eq!(
        took.err,
        "--device auto: CUDA, since there are GPUs and the program's kernel has a source in CUDA C\n"
    );
    assert_eq!(answer(EVERYWHERE, &[], Some(&gpus)), Answer { err: String::new(), ..took });
}

#[cfg(target_os = "linux")]
#[test]
fn a_program_with_a_kernel_in_rust_alone_runs_on_the_host_and_says_why() {
    let gpus = cuda_stand_in::folder();
    let said =
        "--device auto: the host: not CUDA, since kernel `triple` of `rust_only` has no CUDA C source\n";
    for arguments in [&[][..], &["--device", "auto"]] {
        assert_eq!(answer(RUST_ONLY, arguments, Some(&gpus)), answered("runs on host:0\n42\n", said));
    }
    assert_eq!(answer(RUST_ONLY, &["--quiet"], Some(&gpus)), answered("runs on host:0\n42\n", ""));
    assert_eq!(answer(RUST_ONLY, &["--device", "host"], Some(&gpus)), answered("runs on host:0\n42\n", ""));
}

/// A program that can be sent to a machine without a compiler.
#[cfg(target_os = "linux")]
#[test]
fn kernels_are_compiled_ahead() {
    let folder = std::env::temp_dir().join(format!("chare-shipped-{}", std::process::id()));
    let option = format!("--ship-kernels={}:9.0", folder.display());
    // Where NVRTC is, if it is anywhere.
    let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let answer = answer(EVERYWHERE, &[&option], Some(Path::new(&libraries)));
    if answer.code == Some(0) {
        let kept = std::fs::read_dir(&folder).expect("it has been made").count();
        let _ = std::fs::remove_dir_all(&folder);
        assert_eq!((kept, answer.err), (1, format!("kernels compiled: 1, in {}\n", folder.display())));
        return;
    }
    assert!(std::env::var_os("REQUIRE_NVRTC").is_none(), "{answer:?}");
    assert_eq!((answer.code, answer.err.lines().count()), (Some(2), 1), "{answer:?}");
    let why = "error: --ship-kernels: kernel `twice` is CUDA C, and there is no NVRTC";
    assert!(answer.err.starts_with(why), "{answer:?}");
}
