//! Libraries of MPI that say they reach devices, and do not: what they bring, or do not bring, is noticed before the run.

use std::env;
use std::process::Command;

use libtest_mimic::Failed;

use super::{check, mpirun_with, texts, texts_and_code};

/// Puts `mpi-shim.c` before the library of MPI.
fn shim() -> Result<String, Failed> {
    let [source, shim] = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/spoiled/mpi-shim.c"),
        concat!(env!("CARGO_TARGET_TMPDIR"), "/mpi-shim.so"),
    ];
    let compiler = env::var("MPICC").unwrap_or_else(|_| "mpicc".into());
    let built = Command::new(&compiler).args(["-shared", "-fPIC", "-o", shim, source]).output()?;
    check(built.status.success(), || format!("{compiler}: {}", texts(&built).1))?;
    Ok(format!("LD_PRELOAD={shim}"))
}

/// MPI says that it reaches GPUs, and does not: each process has one that the other has not got, so memory is staged, and all say why.
pub(super) fn samples_are_noticed() -> Result<(), Failed> {
    let (this, shim) = (env::current_exe()?, shim()?);
    let this = this.to_str().ok_or("the path of the target folder is no text")?;
    let on =
        |program, gpu| ["env", &shim, "CHARE_TEST_SPOIL=all", this, program, "--pes", "1", "--device", gpu];
    for program in ["info", "results"] {
        let both = [&on(program, "cuda:0")[..], &[":", "-n", "1"], &on(program, "cuda:1")].concat();
        let (said, errors, code) = texts_and_code(&mpirun_with("1", &both, "auto", "2"));
        check(code == Some(0), || format!("{program}: {said}{errors}"))?;
        for (rank, other) in [(0, 1), (1, 0)].into_iter().filter(|_| program == "info") {
            let begin = format!("rank {other}    staged: not ipc, since ");
            let told = "; not mpi, since a sample of rank 1 came with other contents (rank 0)";
            let is_told = said.lines().any(|line| line.contains(&begin) && line.ends_with(told));
            check(is_told, || format!("rank {rank}: {begin}..{told}: {said}"))?;
        }
    }
    Ok(())
}

/// Of two devices in each of three processes, one sample comes with other contents.
pub(super) fn each_sample_counts() -> Result<(), Failed> {
    let (program, shim) = (env!("CARGO_BIN_EXE_across"), shim()?);
    let run = |spoil: &str| {
        let spoil = format!("CHARE_TEST_SPOIL={spoil}");
        let devices = ["--pes", "2", "--device", "host:2"];
        let command = [&["env", &shim, &spoil, program][..], &devices].concat();
        texts_and_code(&mpirun_with("3", &command, "mpi", "0"))
    };
    let (said, errors, code) = run("3:0");
    check(code == Some(0), || format!("there is no rank 3: {said}{errors}"))?;
    for rank in 0..3 {
        for number in 0..2 {
            let (said, errors, code) = run(&format!("{rank}:{number}"));
            let next = (rank + 1) % 3;
            let told = format!("a sample of rank {rank} came with other contents (rank {next})");
            check(code == Some(2) && errors.contains(&told), || {
                format!("sample {number} of {rank}: {said}{errors}")
            })?;
        }
    }
    Ok(())
}

/// MPI does not bring samples, or does not come back: no process waits for ever.
pub(super) fn missing_samples_end_the_start() -> Result<(), Failed> {
    let (program, shim) = (env!("CARGO_BIN_EXE_across"), shim()?);
    for (swallow, told) in [
        (
            "1:1",
            &["error: MPI has not brought rank 2 the samples of device memory of rank 1 within 10 s"][..],
        ),
        // Which of them says so first is not known; launchers then end the others.
        (
            "all",
            &[
                "error: MPI has not brought rank 0 the samples of device memory of rank 2 within 10 s",
                "error: MPI has not brought rank 1 the samples of device memory of rank 0 within 10 s",
                "error: MPI has not brought rank 2 the samples of device memory of rank 1 within 10 s",
            ],
        ),
    ] {
        let swallow = format!("CHARE_TEST_SWALLOW={swallow}");
        let devices = ["--pes", "2", "--device", "host:2", "--heartbeat", "2"];
        let command = [&["env", &shim, &swallow, program][..], &devices].concat();
        let (said, errors, code) = texts_and_code(&mpirun_with("3", &command, "mpi", "0"));
        let is_told =
            told.iter().any(|told| errors.contains(told)) && errors.contains("`--device-path staged`");
        check(code != Some(0) && is_told, || format!("{swallow}: {code:?} {said}{errors}"))?;
    }
    Ok(())
}
