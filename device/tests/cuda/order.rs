//! Order: inside of a stream, between streams, between devices, and with what others enqueue.

use chare_device::cuda::{CudaError, Extent, Parameters, Priority, Progress, Settings};
use cuda_stand_in::Parameter;

use crate::apart::apart;
use crate::setting::*;

#[test]
fn thousands_of_small_launches_run_in_order() {
    apart("order::thousands_of_small_launches_run_in_order", &[("STAND_IN_DELAY_US", "0")], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (add, streams) = (Add::load(&gpu), [stream(&gpu), stream(&gpu), gpu.stream(Priority::High)]);
        let blocks: Vec<_> = streams.iter().map(|stream| block_of(&cuda, stream, 4, 0)).collect();
        let mut parameters = Parameters::new();
        for _ in 0..2000 {
            for (stream, block) in streams.iter().zip(&blocks) {
                parameters.clear();
                parameters.push_block(block).push(3_u64).push(4_u64);
                // SAFETY: these are its parameters.
                let launched =
                    unsafe { stream.launch(add.function(), &Extent::new(4, 1, 1), &parameters, &[block]) };
                launched.expect("a launch");
            }
        }
        for (stream, block) in streams.iter().zip(&blocks) {
            assert!(holds(&cuda, stream, block, 6000));
        }
    });
}

#[test]
fn marks_tell_what_is_done() {
    apart("order::marks_tell_what_is_done", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, add, first, second) = (Gate::close(&gpu), Add::load(&gpu), stream(&gpu), stream(&gpu));
        let block = block_of(&cuda, &first, 1, 0);
        let before = first.mark().expect("no fault");
        gate.hold(&first);
        let behind = add.launch(&first, &block, 1).expect("a launch");
        let beside = block_of(&cuda, &second, 1, 2);
        wait_for(&gpu, second.mark().expect("no fault")).expect("a slow stream hides no other");
        wait_for(&gpu, before).expect("it stands before the gate");
        assert!(matches!(gpu.query(behind), Progress::Pending));
        gate.open();
        wait_for(&gpu, behind).expect("no fault");
        assert!(matches!(gpu.query(before), Progress::Ready) && holds(&cuda, &second, &beside, 2));
    });
}

#[test]
fn streams_wait_for_each_other_on_the_device() {
    for seed in ["1", "2", "3"] {
        let variables = [("STAND_IN_SEED", seed), ("STAND_IN_WORKERS", "4")];
        apart("order::streams_wait_for_each_other_on_the_device", &variables, || {
            let cuda = open();
            let gpu = cuda.gpu(0);
            let (add, ping, pong) = (Add::load(&gpu), stream(&gpu), stream(&gpu));
            let (one, other) = (block_of(&cuda, &ping, 64, 0), pong.allocate(512).expect("memory"));
            for _ in 0..100 {
                let given = add.launch(&ping, &one, 1).expect("a launch");
                pong.wait(given).expect("no fault");
                pong.copy((&other, 0), (&one, 0), 512).expect("a copy");
                let returned = add.launch(&pong, &other, 1).expect("a launch");
                ping.wait(returned).expect("no fault");
                ping.copy((&one, 0), (&other, 0), 512).expect("a copy");
            }
            assert!(holds(&cuda, &ping, &one, 200));
        });
    }
}

#[test]
fn devices_wait_for_each_other() {
    for peer in ["0", "1"] {
        apart("order::devices_wait_for_each_other", &[("STAND_IN_PEER", peer)], || {
            let cuda = open();
            let (near, far) = (cuda.gpu(0), cuda.gpu(1));
            let (add_near, add_far) = (Add::load(&near), Add::load(&far));
            let (here, there) = (stream(&near), stream(&far));
            let (one, other) = (block_of(&cuda, &here, 64, 0), there.allocate(512).expect("memory"));
            for _ in 0..50 {
                there.wait(add_near.launch(&here, &one, 1).expect("a launch")).expect("no fault");
                there.copy((&other, 0), (&one, 0), 512).expect("a peer copy");
                here.wait(add_far.launch(&there, &other, 1).expect("a launch")).expect("no fault");
                here.copy((&one, 0), (&other, 0), 512).expect("a peer copy");
            }
            assert!(holds(&cuda, &here, &one, 100));
            let reached = add_near.launch(&here, &other, 1);
            match std::env::var("STAND_IN_PEER").as_deref() {
                Ok("0") => {
                    let message = reached.expect_err("out of reach").to_string();
                    assert!(
                        message.contains("cannot reach memory of cuda:1; copy the block over"),
                        "{message}"
                    );
                }
                _ => wait_for(&near, reached.expect("a launch")).expect("in reach"),
            }
        });
    }
}

#[test]
fn what_others_enqueue_is_in_order() {
    apart("order::what_others_enqueue_is_in_order", &[], || {
        use cudarc::driver::{result, sys};
        let cuda = open();
        let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
        let (add, stream, elsewhere) = (Add::load(&gpu), stream(&gpu), stream(&other));
        let block = block_of(&cuda, &stream, 8, 1);
        add.launch(&stream, &block, 1).expect("a launch");
        let (address, mut current) = (block.address(), std::ptr::null_mut());
        // SAFETY: the fill is inside of the block; the other context is retained.
        let (answer, mark) = unsafe {
            stream.enqueue("fill by hand", &[&block], |raw: *mut std::ffi::c_void| {
                let filled = result::memset_d8_async(address, 1, 8, raw.cast::<sys::CUstream_st>().cast());
                sys::cuCtxGetCurrent(&mut current);
                // Rude, and allowed.
                result::ctx::set_current(std::ptr::null_mut()).expect("no context");
                filled
            })
        }
        .expect("no fault");
        assert!(answer.is_ok() && !current.is_null());
        // The context is made current again, as it has to be.
        add.launch(&stream, &block, 1).expect("a launch");
        wait_for(&gpu, mark).expect("no fault");
        let found = numbers(&cuda, &stream, &block).expect("no fault");
        assert_eq!((found[0], found[1]), (0x0101_0101_0101_0102, 3));
        assert!(holds(&cuda, &elsewhere, &block_of(&cuda, &elsewhere, 3, 6), 6));
    });
}

#[test]
fn sleepers_are_woken_when_all_is_done() {
    apart("order::sleepers_are_woken_when_all_is_done", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, stream) = (Gate::close(&gpu), stream(&gpu));
        let (woken, sleeper) = std::sync::mpsc::channel();
        gate.hold(&stream);
        let sender = woken.clone();
        stream.notify(move || sender.send(1).expect("somebody waits")).expect("no fault");
        stream.notify(|| panic!("on purpose")).expect("no fault");
        let last = stream.notify(move || woken.send(2).expect("somebody waits")).expect("no fault");
        assert!(sleeper.try_recv().is_err() && matches!(gpu.query(last), Progress::Pending));
        gate.open();
        assert_eq!((sleeper.recv(), sleeper.recv()), (Ok(1), Ok(2)));
        wait_for(&gpu, last).expect("no fault");
    });
}

#[test]
fn contexts_are_made_current_only_when_they_are_not() {
    apart("order::contexts_are_made_current_only_when_they_are_not", &[], || {
        let cuda = open();
        let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
        let (add, here, there) = (Add::load(&gpu), stream(&gpu), stream(&other));
        let block = block_of(&cuda, &here, 8, 0);
        let count = || stand_in().call_count("cuCtxSetCurrent");
        let before = count();
        for _ in 0..100 {
            add.launch(&here, &block, 1).expect("a launch");
        }
        assert_eq!(count(), before);
        let far = there.allocate(64).expect("memory");
        there.fill(&far, 0).expect("a fill");
        add.launch(&here, &block, 1).expect("a launch");
        assert_eq!(count(), before + 2);
    });
}

#[test]
fn shapes_follow_the_device() {
    apart("order::shapes_follow_the_device", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let stream = stream(&gpu);
        stand_in().register("shape", &[Parameter::Address { align: 4 }], |geometry, arguments| {
            let seen = [geometry.grid, geometry.block].concat();
            arguments.slice::<u32>(0, 6)?.copy_from_slice(&seen);
            Ok(())
        });
        let shape = function(&gpu, "shape");
        let block = stream.allocate(24).expect("memory");
        let mut parameters = Parameters::new();
        parameters.push_block(&block);
        let shape_of = |extent: Extent| {
            // SAFETY: this is its parameter.
            unsafe { stream.launch(&shape, &extent, &parameters, &[&block]) }?;
            let seen = land(stream.download(&block, 0, cuda.pinned(24)?)?)?;
            let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
            Ok::<Vec<u32>, CudaError>(seen.chunks_exact(4).map(word).collect())
        };
        assert_eq!(shape_of(Extent::new(1000, 1, 1)).expect("a launch"), [4, 1, 1, 256, 1, 1]);
        assert_eq!(shape_of(Extent::new(100, 100, 1)).expect("a launch"), [4, 13, 1, 32, 8, 1]);
        assert_eq!(shape_of(Extent::new(64, 64, 64)).expect("a launch"), [2, 16, 32, 32, 4, 2]);
        let stated = Extent { block: Some([64, 1, 1]), ..Extent::new(100, 3, 1) };
        assert_eq!(shape_of(stated).expect("a launch"), [2, 3, 1, 64, 1, 1]);
        let before = stand_in().call_count("cuLaunchKernel");
        shape_of(Extent::new(0, 5, 5)).expect("nothing to do");
        assert_eq!(stand_in().call_count("cuLaunchKernel"), before);
        let large = Extent { block: Some([2048, 1, 1]), ..Extent::new(1, 1, 1) };
        let message = shape_of(large).expect_err("too large").to_string();
        assert!(message.contains("a block of [2048, 1, 1] has 2048 threads; 1 to 1024 can be"), "{message}");
        let tall = Extent { block: Some([1, 1, 1]), ..Extent::new(1, 70_000, 1) };
        let message = shape_of(tall).expect_err("too many blocks").to_string();
        assert!(
            message.contains("grid [1, 70000, 1], block [1, 1, 1]: CUDA_ERROR_INVALID_VALUE"),
            "{message}"
        );
        shape_of(Extent::new(1, 1, 1)).expect("the device goes on");
    });
}

#[test]
fn full_streams_say_so() {
    apart("order::full_streams_say_so", &[], || {
        let cuda = chare_device::cuda::Cuda::open(Settings { full_at: 100, ..settings() }).expect("it opens");
        let gpu = cuda.gpu(0);
        let (gate, add, stream) = (Gate::close(&gpu), Add::load(&gpu), stream(&gpu));
        let block = block_of(&cuda, &stream, 1, 0);
        gate.hold(&stream);
        let mut launched = 0;
        while !stream.is_full() {
            add.launch(&stream, &block, 1).expect("a launch");
            launched += 1;
        }
        assert!((90..100).contains(&launched), "{launched}");
        gate.open();
        wait_for(&gpu, stream.mark().expect("no fault")).expect("no fault");
        assert!(!stream.is_full() && holds(&cuda, &stream, &block, launched));
    });
}

#[test]
fn threads_share_a_stream() {
    apart("order::threads_share_a_stream", &[("STAND_IN_DELAY_US", "0")], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (add, stream) = (Add::load(&gpu), stream(&gpu));
        let block = block_of(&cuda, &stream, 16, 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mark = add.launch(&stream, &block, 1).expect("a launch");
                        let _ = gpu.query(mark);
                        drop(stream.allocate(1 << 12).expect("memory"));
                    }
                });
            }
        });
        assert!(holds(&cuda, &stream, &block, 800));
    });
}
