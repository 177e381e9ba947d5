//! What `chare info` prints, on the host, on a stand-in for NVIDIA's driver, and on an adapter of wgpu.

#[cfg(feature = "mpi")]
#[path = "../../tests/launcher/mod.rs"]
mod launcher;

use std::path::Path;
use std::process::Command;

/// What the program has answered: code, standard output, standard error.
type Answer = (Option<i32>, String, String);

fn chare(arguments: &[&str], gpus: Option<&Path>, variables: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chare"));
    command
        .args(arguments)
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("CHARE_DEVICE")
        .env_remove("CHARE_DEVICE_MAP");
    for launcher in
        ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"]
    {
        command.env_remove(launcher);
    }
    if let Some(folder) = gpus {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let output = command.envs(variables.iter().copied()).output().expect("the program can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What is said before the kinds of devices, which every machine has others of.
fn info(arguments: &[&str], gpus: Option<&Path>, variables: &[(&str, &str)]) -> String {
    let (code, out, err) = chare(&[&["info"], arguments].concat(), gpus, variables);
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    let (before, kinds) = out.split_once("kinds of devices:\n").expect("kinds are listed");
    assert!(kinds.starts_with("  cuda    ") && kinds.ends_with("\n  host    always there\n"), "{out}");
    before.to_owned()
}

#[test]
fn on_the_host() {
    let said = info(&["--pes", "3", "--device", "host:2@1,3:mem=64MiB"], None, &[]);
    let wanted = "\
PEs: 3 of this process
  PE 0    host:0
  PE 1    host:0
  PE 2    host:1
devices: as asked for
  host:0    kernels in Rust, 64 MiB
  host:1    kernels in Rust, 64 MiB, speed 3
paths:
  host:0 to host:0    same device: it is there already and is handed over
  host:0 to host:1    host memory: both devices keep it in the host's memory
  host:1 to host:0    host memory: both devices keep it in the host's memory
  host:1 to host:1    same device: it is there already and is handed over
";
    assert_eq!(said, wanted);
    let said = info(&["--pes=1", "--device=host:2", "--device-map=1"], None, &[]);
    assert!(said.contains("  PE 0    host:1\n") && said.contains("Rust, memory without a limit\n"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_stand_in_for_gpus() {
    let gpus = cuda_stand_in::folder();
    let said = info(&["--pes", "1"], Some(&gpus), &[("STAND_IN_PEER", "0")]);
    let wanted = "\
PEs: 1 of this process
  PE 0    cuda:0, cuda:1
devices: CUDA, since there are GPUs and the kernels have sources in CUDA C
  cuda:0    CUDA stand-in, kernels in CUDA C, 256 MiB, GPU-63756461-2073-7461-6e64-2d696e200000
            0 % busy, 1 of 256 MiB taken, 40 °C, near processors 0-63
  cuda:1    CUDA stand-in, kernels in CUDA C, 256 MiB, GPU-63756461-2073-7461-6e64-2d696e200001
            10 % busy, 2 of 256 MiB taken, 41 °C, near processors 0-63
paths:
  cuda:0 to cuda:0    same device: it is there already and is handed over
  cuda:0 to cuda:1    copy by the driver: the GPUs do not reach each other's memory, and the driver copies by way of its own
  cuda:1 to cuda:0    copy by the driver: the GPUs do not reach each other's memory, and the driver copies by way of its own
  cuda:1 to cuda:1    same device: it is there already and is handed over
";
    assert_eq!(said, wanted);
    let said = info(&["--pes", "1", "--device", "cuda:1,0"], Some(&gpus), &[]);
    let peers = "cuda:1 to cuda:0    peer copy: the GPUs reach each other's memory\n";
    assert!(said.contains("PE 0    cuda:1, cuda:0\n") && said.contains(peers), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn one_of_several_processes_takes_the_devices_near_it() {
    let gpus = cuda_stand_in::folder();
    let own = chare::device::Cpus::of_this_process().expect("Linux tells").to_string();
    // The last one: no other is the next.
    let own = own.rsplit([',', '-']).next().expect("there is one");
    let rank = [("OMPI_COMM_WORLD_LOCAL_RANK", "0"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "2")];
    let second = [("OMPI_COMM_WORLD_LOCAL_RANK", "1"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "2")];
    let bound = |variables: &[(&str, &str)]| {
        let said = info(&["--pes", "1"], Some(&gpus), variables);
        said.lines().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let first_line = |rank| format!("PEs: 1 of this process, which is number {rank} of 2 on this machine");
    assert_eq!(bound(&rank), [first_line(0), "  PE 0    cuda:0".to_owned()]);
    assert_eq!(bound(&second), [first_line(1), "  PE 0    cuda:1".to_owned()]);
    // Slurm shows each process GPUs of its own.
    let slurm = [
        ("SLURM_LOCALID", "1"),
        ("SLURM_STEP_TASKS_PER_NODE", "2"),
        ("SLURM_GPUS_PER_TASK", "2"),
        ("CUDA_VISIBLE_DEVICES", "2,3"),
    ];
    let all_it_sees = [first_line(1) + ", with devices of its own", "  PE 0    cuda:0, cuda:1".to_owned()];
    assert_eq!(bound(&slurm), all_it_sees);
    // Now only device 0 is near a processor that this process runs on.
    let far = [("STAND_IN_NEAR_CPU", own)];
    assert_eq!(bound(&[&second[..], &far].concat()), [first_line(1), "  PE 0    cuda:0".to_owned()]);
}

#[cfg(feature = "wgpu")]
#[test]
fn on_an_adapter_of_wgpu() {
    let (code, out, err) = chare(&["info", "--pes", "2", "--device", "wgpu:0x2"], None, &[]);
    if err.starts_with("error: --device wgpu:0x2: no wgpu adapter") {
        assert!(!std::env::var("REQUIRE_DEVICE").unwrap_or_default().contains("wgpu"), "{err}");
        return;
    }
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[..4],
        ["PEs: 2 of this process", "  PE 0    wgpu:0", "  PE 1    wgpu:1", "devices: as asked for"]
    );
    assert!(lines[4].starts_with("  wgpu:0    ") && lines[4].contains(", kernels in WGSL, "), "{out}");
    assert_eq!(lines[5], "            load, memory, temperature and near processors unknown");
    let path = "  wgpu:0 to wgpu:1    copy on the adapter: both devices are of one adapter";
    assert!(lines.contains(&path), "{out}");
}

#[test]
fn mistakes_are_told_in_one_line() {
    let usage = "usage: chare info [--pes N] [--device SPEC] [--device-map MAP] [--device-path PATH]";
    for (arguments, text) in [
        (&[][..], format!("there is no command; {usage}")),
        (&["inf"], format!("there is no command `inf`; {usage}")),
        (&["info", "more"], format!("`more` is not understood after `info`; {usage}")),
        (
            &["info", "--pes", "1", "--device", "host", "--device-map", "1"],
            "--device-map names device 1, and there are 1, from 0".to_owned(),
        ),
        (
            &["info", "--pes", "0"],
            "--pes 0: a run has from 1 to 4096 PEs; leave --pes out for one per core".to_owned(),
        ),
    ] {
        assert_eq!(chare(arguments, None, &[]), (Some(2), String::new(), format!("error: {text}\n")));
    }
    assert_eq!(chare(&["--help"], None, &[]), (Some(0), format!("{usage}\n"), String::new()));
}

/// Under `mpirun` the first process tells of all.
#[cfg(feature = "mpi")]
#[test]
fn of_all_processes_of_a_job() {
    let mut command = launcher::mpirun();
    command.args(["-n", "3", env!("CARGO_BIN_EXE_chare")]);
    command.args(["info", "--pes", "2", "--device", "host:2"]);
    let output = command.output().expect("mpirun is there");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    let (said, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.starts_with("job: 3 processes on 1 hosts, 6 PEs\nrank 0 on "), "{said}");
    let places: Vec<_> =
        ["rank 0 on", "PE 1    host:", "rank 1 on", "PE 2    host:", "rank 2 on", "PE 5    host:"]
            .map(|part| said.find(part))
            .into();
    assert!(places.is_sorted() && places[0].is_some(), "{places:?} {said}");
    assert_eq!(said.matches("host:0 to host:1    host memory").count(), 3, "{said}");

    // What is wrong in all is told by all, and none waits for another.
    let output = launcher::mpirun()
        .args(["-n", "2", env!("CARGO_BIN_EXE_chare")])
        .args(["info", "--pes", "1", "--device", "host:1", "--device-map", "7"])
        .output()
        .expect("mpirun is there");
    assert_eq!(output.status.code(), Some(2));
}
