//! One seed is one run, in whichever program it is: what a failing seed prints does the same again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::{env, fs};

use chare::prelude::*;

use crate::simulation::{a_little_of_everything, race, simulate, simulation};

/// Has `planted_race` fail.
const PLANTED: &str = "PLANT_A_RACE";

/// A test that fails, but only where the next one starts it.
#[chare::test(pes = 4, seeds = "200:processes=4:hosts=2:link-0-1=5us,1.5GB/s:overhead=7ns:migrate=7")]
async fn planted_race(rt: Runtime) -> Result<()> {
    if env::var_os(PLANTED).is_some() { race(rt).await } else { Ok(()) }
}

#[test]
fn a_failing_seed_prints_a_command_that_fails_in_the_same_way() {
    let found = this_program(&mut Command::new(env::current_exe().expect("a test is a program")), |tests| {
        tests.args([&name_of("planted_race"), "--exact"]).env(PLANTED, "1")
    });
    let failure = failure_in(&found);
    assert!(failure.contains("plain messages came in another order"), "{failure}");
    assert!(!failure.contains("trace 0000000000000000"), "{failure}");
    let (_, command) = failure.rsplit_once("and the same: ").expect("it says how");
    assert!(command.contains(":hosts=2:link-0-1=5000ns,1500000000B/s:overhead=7ns:migrate=7 "), "{command}");
    let stand_in = StandIn::new();
    for _ in 0..2 {
        let again = this_program(Command::new("sh").args(["-c", command]), |shell| {
            shell.env(PLANTED, "1").env("PATH", stand_in.path())
        });
        assert_eq!(failure_in(&again), failure);
    }
}

/// The name of a test of this file, as the harness has it.
fn name_of(test: &str) -> String {
    let (_, module) = module_path!().split_once("::").expect("it begins with the program");
    format!("{module}::{test}")
}

/// Runs a command that starts this program, where nothing asks for other simulated runs than it says.
fn this_program(command: &mut Command, and: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    for variable in ["CHARE_SEED", "CHARE_SIM_SEEDS", "CHARE_SIM_SECONDS", "RUST_TEST_NOCAPTURE"] {
        command.env_remove(variable);
    }
    and(command).output().expect("it can be started")
}

/// What a test has failed with: the end of its run, and how to run it again.
fn failure_in(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let begin = text.find("exit code ").unwrap_or_else(|| panic!("it has failed in another way: {text}"));
    let end = text[begin..].find(" -- --exact").expect("it says how to run it again");
    text[begin..begin + end].to_owned() + " -- --exact"
}

/// A `cargo` that has built everything already: it runs the tests of this program that its arguments name. The real one may have others to build
/// first, and this program among them.
struct StandIn(PathBuf);

impl StandIn {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stand-in-{}", process::id()));
        fs::create_dir_all(&folder).expect("there is room");
        let tests = env::current_exe().expect("a test is a program");
        let script = format!(
            "#!/bin/sh\n[ \"$1 $2 $3 $5\" = 'test -p {} --' ] || exit 64\nname=$4\nshift 5\nexec '{}' \"$name\" \"$@\"\n",
            env!("CARGO_PKG_NAME"),
            tests.display(),
        );
        let cargo = folder.join("cargo");
        fs::write(&cargo, script).expect("there is room");
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("it is ours");
        StandIn(folder)
    }

    /// Where programs are looked for, this one first.
    fn path(&self) -> String {
        format!("{}:{}", self.0.display(), env::var("PATH").unwrap_or_default())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Nothing is lost if it stays.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The specification that `simulates_as_it_is_told` runs.
const SPECIFICATION: &str = "SIMULATE";

/// A run whose steps are told, but only where the next test starts it.
#[test]
fn simulates_as_it_is_told() {
    let Ok(spec) = env::var(SPECIFICATION) else { return };
    let report = simulate(8, spec.parse().expect("a simulation"), a_little_of_everything);
    assert!(report.is_success(), "{report}");
    eprintln!("{}", simulation(&report));
}

/// Two programs have their memory at other addresses, other random numbers of the standard library's, and other times.
#[test]
fn two_programs_do_the_same_steps_for_one_seed() {
    let run = |seed: u64| {
        let spec = format!("{seed}:processes=4:hosts=2:migrate=3:trace");
        let output =
            this_program(&mut Command::new(env::current_exe().expect("a test is a program")), |tests| {
                let name = name_of("simulates_as_it_is_told");
                tests.args([&name, "--exact", "--nocapture"]).env(SPECIFICATION, spec)
            });
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        told
    };
    for seed in 0..4 {
        let (first, second) = (run(seed), run(seed));
        let differs = first.lines().zip(second.lines()).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert!(first == second && first.contains("\ntrace "), "seed {seed}: one goes on");
        for event in
            [" leaves PE ", "process 3 gets ", "PE 6 reads it", "PE 7 reads it", " looks at the devices"]
        {
            assert!(first.contains(event), "seed {seed}: no `{event}` in {first}");
        }
    }
    assert_ne!(run(0), run(4));
}
