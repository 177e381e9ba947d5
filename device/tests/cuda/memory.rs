//! Blocks and pinned memory: recycled in stream order, without calls of the driver, and never under what uses them.

use chare_device::cuda::{CudaError, Settings};

use crate::apart::apart;
use crate::setting::*;

/// The driver's functions that a steady state does not call.
const ALLOCATIONS: [&str; 5] =
    ["cuMemAlloc_v2", "cuMemFree_v2", "cuMemHostAlloc", "cuEventCreate", "cuStreamCreateWithPriority"];

fn allocation_counts() -> [u64; 5] {
    ALLOCATIONS.map(|name| stand_in().call_count(name))
}

#[test]
fn what_goes_up_comes_down() {
    apart("memory::what_goes_up_comes_down", &[], || {
        let cuda = open();
        let stream = stream(&cuda.gpu(0));
        let block = stream.allocate(1000).expect("memory");
        assert!(block.address().is_multiple_of(256) && block.len_bytes() == 1000);
        let mut host = cuda.pinned(100).expect("pinned memory");
        (0..100).for_each(|index| host[index] = index as u8);
        land(stream.upload(&block, 300, host).expect("an upload")).expect("no fault");
        let down = land(stream.download(&block, 310, cuda.pinned(10).expect("memory")).expect("a download"));
        assert_eq!(down.expect("no fault")[..], [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(stand_in().call_count("pageable copies"), 0);
    });
}

#[test]
fn ranges_are_checked() {
    apart("memory::ranges_are_checked", &[], || {
        let cuda = open();
        let stream = stream(&cuda.gpu(0));
        let (small, large) = (stream.allocate(8).expect("memory"), stream.allocate(80).expect("memory"));
        let host = cuda.pinned(9).expect("memory");
        assert!(matches!(stream.upload(&small, 0, host), Err(CudaError::Range { .. })));
        let host = cuda.pinned(1).expect("memory");
        assert!(matches!(stream.download(&small, usize::MAX, host), Err(CudaError::Range { .. })));
        let message = stream.copy((&small, 0), (&large, 0), 80).expect_err("too long").to_string();
        assert_eq!(message, "the target of a copy: 80 bytes at 0 of 8");
    });
}

#[test]
fn a_steady_state_allocates_nothing() {
    apart("memory::a_steady_state_allocates_nothing", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (add, streams) = (Add::load(&gpu), [stream(&gpu), stream(&gpu), stream(&gpu)]);
        let mut counts = None;
        for round in 0..120 {
            for (index, stream) in streams.iter().enumerate() {
                let block = block_of(&cuda, stream, 100 + 200 * index, 7);
                for addend in 0..20 {
                    add.launch(stream, &block, addend).expect("a launch");
                }
                assert!(holds(&cuda, stream, &block, 7 + 190));
            }
            if round == 20 {
                counts = Some(allocation_counts());
            }
        }
        assert_eq!(counts, Some(allocation_counts()), "{ALLOCATIONS:?}");
    });
}

#[test]
fn the_same_stream_gets_freed_memory_at_once() {
    apart("memory::the_same_stream_gets_freed_memory_at_once", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, own, other) = (Gate::close(&gpu), stream(&gpu), stream(&gpu));
        gate.hold(&own);
        let block = block_of(&cuda, &own, 100, 1);
        let address = block.address();
        drop(block);
        // Still used: another stream gets other memory, the same stream the same.
        let elsewhere = other.allocate(800).expect("memory");
        assert_ne!(elsewhere.address(), address);
        let again = own.allocate(800).expect("memory");
        assert_eq!(again.address(), address);
        drop(again);
        gate.open();
        assert!(holds(&cuda, &own, &block_of(&cuda, &own, 1, 3), 3));
        assert_eq!(other.allocate(800).expect("memory").address(), address, "now it is free for all");
    });
}

#[test]
fn memory_handed_on_is_ordered_for_every_stream() {
    apart("memory::memory_handed_on_is_ordered_for_every_stream", &[("STAND_IN_WORKERS", "4")], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, own, other, add) = (Gate::close(&gpu), stream(&gpu), stream(&gpu), Add::load(&gpu));
        let block = block_of(&cuda, &own, 100, 1);
        gate.hold(&own);
        add.launch(&own, &block, 1000).expect("a launch");
        drop(block);
        // The piece is recycled for its own stream, but used first by another one.
        let again = own.allocate(800).expect("memory");
        set(&cuda, &other, &again, 5);
        gate.open();
        assert!(holds(&cuda, &other, &again, 5), "the old launch came late");
    });
}

#[test]
fn short_memory_is_taken_from_what_is_freed() {
    apart("memory::short_memory_is_taken_from_what_is_freed", &[("STAND_IN_MEMORY_MIB", "2")], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (own, other, add) = (stream(&gpu), stream(&gpu), Add::load(&gpu));
        let len = (1 << 20) / 8;
        for round in 0..20 {
            // Two of three fit. What the third needs is freed, and still used by the other stream.
            let first = block_of(&cuda, &own, len, 1);
            let second = block_of(&cuda, &other, len, 2);
            add.launch(&other, &second, 10).expect("a launch");
            drop(second);
            let third = block_of(&cuda, &own, len, 3);
            add.launch(&own, &third, round).expect("a launch");
            assert!(holds(&cuda, &own, &third, 3 + round) && holds(&cuda, &own, &first, 1));
        }
        // Another size: slabs are cut anew, after the host has waited for them.
        drop(block_of(&cuda, &other, len, 1));
        assert!(holds(&cuda, &own, &block_of(&cuda, &own, 2 * len, 9), 9));
    });
}

#[test]
fn short_memory_waits_on_the_device_and_not_on_the_host() {
    let variables = [("STAND_IN_MEMORY_MIB", "2"), ("STAND_IN_WORKERS", "4")];
    apart("memory::short_memory_waits_on_the_device_and_not_on_the_host", &variables, || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, own, other, third, add) =
            (Gate::close(&gpu), stream(&gpu), stream(&gpu), stream(&gpu), Add::load(&gpu));
        let len = (1 << 20) / 8;
        let (held, used) = (block_of(&cuda, &third, len, 1), block_of(&cuda, &other, len, 2));
        gate.hold(&other);
        add.launch(&other, &used, 10).expect("a launch");
        drop(used);
        // There is no other memory: this is what the other stream still uses.
        let block = block_of(&cuda, &own, len, 3);
        let set = own.mark().expect("no fault");
        assert!(holds(&cuda, &third, &held, 1));
        assert!(matches!(gpu.query(set), chare_device::cuda::Progress::Pending));
        gate.open();
        assert!(holds(&cuda, &own, &block, 3));
    });
}

#[test]
fn out_of_memory_is_an_error_and_no_end() {
    apart("memory::out_of_memory_is_an_error_and_no_end", &[("STAND_IN_MEMORY_MIB", "2")], || {
        let cuda = open();
        let stream = stream(&cuda.gpu(0));
        let held = block_of(&cuda, &stream, (3 << 19) / 8, 4);
        let message = stream.allocate(1 << 20).expect_err("too much").to_string();
        let expected = "cuda:0 is out of memory: 1048576 bytes were asked for; 1572864 bytes are in use here, 524288 of 2097152";
        assert!(message.starts_with(expected), "{message}");
        assert!(matches!(stream.allocate(usize::MAX), Err(CudaError::OutOfMemory { .. })));
        assert!(holds(&cuda, &stream, &held, 4));
        drop(held);
        assert!(holds(&cuda, &stream, &block_of(&cuda, &stream, (1 << 20) / 8, 5), 5));
    });
}

#[test]
fn idle_slabs_go_back_to_the_driver() {
    apart("memory::idle_slabs_go_back_to_the_driver", &[("STAND_IN_MEMORY_MIB", "8")], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, stream) = (Gate::close(&gpu), stream(&gpu));
        let held = stream.allocate(1 << 20).expect("memory");
        gate.hold(&stream);
        drop(block_of(&cuda, &stream, (1 << 20) / 8, 1));
        drop(stream.allocate(1 << 20).expect("memory"));
        assert_eq!(gpu.trim().expect("no fault"), 6 << 20, "one is held, one is used");
        gate.open();
        wait_for(&gpu, stream.mark().expect("no fault")).expect("no fault");
        assert_eq!(gpu.trim().expect("no fault"), 7 << 20);
        assert_eq!(gpu.live_bytes(), held.len_bytes());
    });
}

#[test]
fn free_neighbours_make_a_larger_block() {
    apart("memory::free_neighbours_make_a_larger_block", &[("STAND_IN_MEMORY_MIB", "2")], || {
        let cuda =
            chare_device::cuda::Cuda::open(Settings { slab_bytes: 1 << 20, ..settings() }).expect("it opens");
        let gpu = cuda.gpu(0);
        let stream = stream(&gpu);
        let small: Vec<_> = (0..8).map(|_| gpu.allocate_at_once(1 << 18).expect("no fault")).collect();
        assert!(small.iter().all(Option::is_some) && gpu.allocate_at_once(256).expect("no fault").is_none());
        // One of each slab stays.
        let kept: Vec<_> = small.into_iter().step_by(4).collect();
        let large = [1 << 19, 3 << 18].map(|len_bytes| gpu.allocate_at_once(len_bytes).expect("no fault"));
        let [Some(one), Some(other)] = &large else { panic!("there is room for both: {large:?}") };
        for (block, value) in [(one, 1), (other, 2)] {
            set(&cuda, &stream, block, value);
        }
        assert!(holds(&cuda, &stream, one, 1) && holds(&cuda, &stream, other, 2));
        drop(kept);
    });
}

#[test]
fn pinned_memory_in_flight_is_nobodys() {
    apart("memory::pinned_memory_in_flight_is_nobodys", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, stream) = (Gate::close(&gpu), stream(&gpu));
        let block = stream.allocate(64).expect("memory");
        gate.hold(&stream);
        let host = cuda.pinned(64).expect("memory");
        let address = host.as_ptr();
        let flight = stream.upload(&block, 0, host).expect("an upload");
        let flight = flight.take().expect("no fault").expect_err("the gate is closed");
        // Dropped in flight: the pool does not give it out before the copy is done.
        drop(flight);
        assert_ne!(cuda.pinned(64).expect("memory").as_ptr(), address);
        gate.open();
        wait_for(&gpu, stream.mark().expect("no fault")).expect("no fault");
        let both = [cuda.pinned(64).expect("memory"), cuda.pinned(64).expect("memory")];
        assert!(both.iter().any(|host| host.as_ptr() == address));
    });
}

#[test]
fn all_may_be_dropped_in_flight() {
    apart("memory::all_may_be_dropped_in_flight", &[], || {
        for _ in 0..10 {
            let cuda = open();
            let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
            let (add, near, far) = (Add::load(&gpu), stream(&gpu), stream(&other));
            let (from, to) = (block_of(&cuda, &near, 1000, 1), far.allocate(8000).expect("memory"));
            for addend in 0..50 {
                add.launch(&near, &from, addend).expect("a launch");
            }
            far.wait(near.mark().expect("no fault")).expect("no fault");
            far.copy((&to, 0), (&from, 0), 8000).expect("a copy");
            let _ = far.download(&to, 0, cuda.pinned(8000).expect("memory")).expect("a download");
        }
    });
}

#[test]
fn large_blocks_have_slabs_of_their_own() {
    apart("memory::large_blocks_have_slabs_of_their_own", &[], || {
        let cuda =
            chare_device::cuda::Cuda::open(Settings { slab_bytes: 4096, ..settings() }).expect("it opens");
        let stream = stream(&cuda.gpu(0));
        let blocks: Vec<_> = (0..6).map(|power| block_of(&cuda, &stream, 256 << power, power)).collect();
        for (power, block) in blocks.iter().enumerate() {
            assert!(holds(&cuda, &stream, block, power as u64));
        }
    });
}
