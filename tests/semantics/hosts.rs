//! Where PEs are.

use chare::prelude::*;
use chare::{HostId, PeId, Sim};

use crate::{PES, run_in_one_process};

#[test]
fn a_program_alone_is_one_process_on_one_host() {
    for pes in PES {
        let report = run_in_one_process(pes, async move |rt: Runtime| {
            assert_eq!((rt.num_processes(), rt.num_hosts(), rt.my_host()), (1, 1, HostId::new(0)));
            assert_eq!(rt.pes_of(HostId::new(0)), rt.pes().collect::<Vec<_>>());
            let last = PeId::new(pes - 1);
            assert_eq!(
                (rt.process_of(last), rt.host_of(last), rt.rank_on_host(last)),
                (0, HostId::new(0), pes - 1)
            );
            assert!(!rt.host_name(HostId::new(0)).is_empty() && rt.pes_of(HostId::new(1)).is_empty());
        });
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn a_simulated_run_tells_of_the_hosts_that_are_simulated() {
    let sim = Sim::new(1).with_processes(4, 2);
    let options = chare::Options::default().with_pes(8).simulate(sim);
    let report = chare::Runtime::run(options, async |rt: Runtime| {
        assert_eq!((rt.num_processes(), rt.num_hosts()), (4, 2));
        let of = |pe: usize| (rt.process_of(pe), rt.host_of(pe).index(), rt.rank_on_host(pe));
        assert_eq!([0, 3, 4, 7].map(of), [(0, 0, 0), (1, 0, 3), (2, 1, 0), (3, 1, 3)]);
        assert_eq!(rt.pes_of(HostId::new(1)), (4..8).map(PeId::new).collect::<Vec<_>>());
    });
    let report = report.expect("the host device is always there");
    assert!(report.is_success(), "{report}");
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn every_pe_is_in_a_process_and_on_a_host(rt: Runtime) {
    let hosts: usize = (0..rt.num_hosts()).map(|host| rt.pes_of(HostId::new(host)).len()).sum();
    assert_eq!(hosts, rt.num_pes());
    let each = rt.num_pes() / rt.num_processes();
    assert!(rt.pes().all(|pe| rt.process_of(pe) == pe.index() / each));
    assert!(rt.pes().all(|pe| rt.pes_of(rt.host_of(pe))[rt.rank_on_host(pe)] == pe));
}

#[chare::test(pes = 2)]
#[should_panic(expected = "there is no PE 2: the run has 2")]
async fn a_pe_that_is_not_there_is_on_no_host(rt: Runtime) {
    rt.host_of(2_usize);
}
