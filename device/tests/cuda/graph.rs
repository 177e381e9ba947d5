//! Graphs: recorded, replayed, updated; they keep what their nodes use.

use chare_device::cuda::{CudaError, Extent, Recording};

use crate::apart::apart;
use crate::setting::*;

/// Records so many additions to a block.
fn additions<'a>(
    add: &'a Add,
    block: &'a chare_device::cuda::Block,
    addends: &'a [u64],
) -> impl FnOnce(&mut Recording<'_>) -> Result<(), CudaError> + 'a {
    move |recording| {
        for &addend in addends {
            let extent = Extent::new(block.len_bytes() as u32 / 8, 1, 1);
            // SAFETY: these are its parameters.
            unsafe { recording.launch(add.function(), &extent, &Add::parameters(block, addend), &[block]) }?;
        }
        Ok(())
    }
}

#[test]
fn graphs_replay_in_stream_order() {
    apart("graph::graphs_replay_in_stream_order", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (add, stream) = (Add::load(&gpu), stream(&gpu));
        let (block, twin) = (block_of(&cuda, &stream, 8, 0), block_of(&cuda, &stream, 8, 0));
        let graph = gpu.record("three additions", |recording| {
            additions(&add, &block, &[1, 2, 3])(recording)?;
            recording.copy((&twin, 0), (&block, 0), 64)
        });
        let graph = graph.expect("a graph");
        assert!(holds(&cuda, &stream, &block, 0), "recorded is not run");
        let before = stand_in().call_count("cuLaunchKernel");
        for _ in 0..100 {
            stream.replay(&graph).expect("a replay");
        }
        add.launch(&stream, &block, 1000).expect("a launch");
        assert_eq!(stand_in().call_count("cuLaunchKernel"), before + 1);
        assert!(holds(&cuda, &stream, &block, 1600) && holds(&cuda, &stream, &twin, 600));
    });
}

#[test]
fn changed_parameters_patch_and_changed_shapes_remake() {
    apart("graph::changed_parameters_patch_and_changed_shapes_remake", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (add, stream) = (Add::load(&gpu), stream(&gpu));
        let (one, other) = (block_of(&cuda, &stream, 8, 0), block_of(&cuda, &stream, 8, 0));
        let mut graph = gpu.record("additions", additions(&add, &one, &[1, 2])).expect("a graph");
        stream.replay(&graph).expect("a replay");
        assert!(graph.update(additions(&add, &other, &[10, 20])).expect("patched"));
        stream.replay(&graph).expect("a replay");
        assert!(!graph.update(additions(&add, &other, &[100])).expect("made again"));
        stream.replay(&graph).expect("a replay");
        assert!(holds(&cuda, &stream, &one, 3) && holds(&cuda, &stream, &other, 130));
        assert_eq!(stand_in().call_count("cuGraphInstantiateWithFlags"), 2);
    });
}

#[test]
fn graphs_keep_their_blocks_and_order_them() {
    apart("graph::graphs_keep_their_blocks_and_order_them", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, add, first, second) = (Gate::close(&gpu), Add::load(&gpu), stream(&gpu), stream(&gpu));
        let block = block_of(&cuda, &first, 8, 1);
        let address = block.address();
        wait_for(&gpu, first.mark().expect("no fault")).expect("no fault");
        let graph = gpu.record("addition", additions(&add, &block, &[1])).expect("a graph");
        drop(block);
        assert_ne!(first.allocate(64).expect("memory").address(), address, "the graph keeps it");
        gate.hold(&first);
        first.replay(&graph).expect("a replay");
        drop(graph);
        assert_ne!(second.allocate(64).expect("memory").address(), address, "the replay uses it");
        gate.open();
        wait_for(&gpu, first.mark().expect("no fault")).expect("no fault");
        let again = [second.allocate(64).expect("memory"), second.allocate(64).expect("memory")];
        assert!(again.iter().any(|block| block.address() == address));
    });
}

#[test]
fn threads_replay_one_graph() {
    apart(
        "graph::threads_replay_one_graph",
        &[("STAND_IN_DELAY_US", "0"), ("STAND_IN_WORKERS", "1")],
        || {
            let cuda = open();
            let gpu = cuda.gpu(0);
            let (add, streams) = (Add::load(&gpu), [stream(&gpu), stream(&gpu)]);
            let block = block_of(&cuda, &streams[0], 8, 0);
            wait_for(&gpu, streams[0].mark().expect("no fault")).expect("no fault");
            let graph = gpu.record("addition", additions(&add, &block, &[1])).expect("a graph");
            std::thread::scope(|scope| {
                for stream in &streams {
                    scope.spawn(|| {
                        for _ in 0..100 {
                            stream.replay(&graph).expect("a replay");
                        }
                    });
                }
            });
            streams[0].wait(streams[1].mark().expect("no fault")).expect("no fault");
            assert!(holds(&cuda, &streams[0], &block, 200));
        },
    );
}

#[test]
fn a_failed_recording_leaves_nothing_behind() {
    apart("graph::a_failed_recording_leaves_nothing_behind", &[], || {
        let cuda = open();
        let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
        let (add, stream) = (Add::load(&gpu), stream(&gpu));
        let block = block_of(&cuda, &stream, 8, 0);
        let failed = gpu.record("bad", |recording| recording.copy((&block, 0), (&block, 60), 64));
        assert!(matches!(failed, Err(CudaError::Range { .. })));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            gpu.record("worse", |_| panic!("on purpose")).map(drop)
        }));
        assert!(panicked.is_err());
        let graph = gpu.record("good", additions(&add, &block, &[4])).expect("a graph");
        stream.replay(&graph).expect("a replay");
        assert!(holds(&cuda, &stream, &block, 4));
        let message = crate::setting::stream(&other).replay(&graph).expect_err("another device").to_string();
        assert!(
            message.contains("`good` cannot be launched on cuda:1: it was recorded on another"),
            "{message}"
        );
    });
}
