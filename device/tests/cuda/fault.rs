//! Faults: each ends one device, names the kernel, reaches whoever waits there, and nobody else.

use std::sync::Arc;

use chare_device::cuda::{CudaError, Progress};

use crate::apart::apart;
use crate::setting::*;

#[test]
fn a_kernel_fault_fails_every_waiter_of_its_device() {
    apart("fault::a_kernel_fault_fails_every_waiter_of_its_device", &[], || {
        let cuda = open();
        let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
        let (add, first, second) = (Add::load(&gpu), stream(&gpu), stream(&gpu));
        let block = block_of(&cuda, &first, 10, 1);
        let done = first.mark().expect("no fault");
        wait_for(&gpu, done).expect("no fault yet");
        let beside = block_of(&cuda, &second, 10, 1);
        wait_for(&gpu, second.mark().expect("no fault")).expect("no fault yet");
        let failed = add.launch_astray(&first, &block).expect("the fault comes later");
        let fault = match wait_for(&gpu, failed) {
            Err(CudaError::Fault(fault)) => fault,
            other => panic!("{other:?}"),
        };
        let message = fault.to_string();
        let expected = "kernel `add` failed on cuda:0: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered); \
                        the device cannot be used again by this process";
        assert_eq!(message, expected);
        // Every waiter and every call gets this same fault; what was done before stays done.
        assert!(matches!(gpu.query(done), Progress::Ready));
        let same = |error: CudaError| matches!(error, CudaError::Fault(other) if Arc::ptr_eq(&other, &fault));
        assert!(same(add.launch(&second, &beside, 1).expect_err("a fault")));
        assert!(same(second.allocate(8).expect_err("a fault")));
        assert!(same(second.copy((&block, 0), (&beside, 0), 8).expect_err("a fault")));
        assert!(same(gpu.free_bytes().expect_err("a fault")));
        assert!(same(gpu.record("graph", |_| Ok(())).err().expect("a fault")));
        assert!(Arc::ptr_eq(&second.poll().expect_err("a fault"), &fault));
        // The other device goes on, and so does pinned memory.
        let there = stream(&other);
        assert!(same(there.wait(failed).expect_err("a fault")));
        let far = block_of(&cuda, &there, 10, 6);
        Add::load(&other).launch(&there, &far, 1).expect("a launch");
        assert!(holds(&cuda, &there, &far, 7));
        drop((block, beside));
    });
}

#[test]
fn any_call_may_be_the_first_to_see_a_fault() {
    apart("fault::any_call_may_be_the_first_to_see_a_fault", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (add, stream) = (Add::load(&gpu), stream(&gpu));
        let block = block_of(&cuda, &stream, 10, 1);
        wait_for(&gpu, stream.mark().expect("no fault yet")).expect("no fault yet");
        let failed = add.launch_astray(&stream, &block).expect("the fault comes later");
        let seen = loop {
            match gpu.free_bytes() {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error.to_string(),
            }
        };
        assert!(seen.starts_with("kernel `add` failed on cuda:0: CUDA_ERROR_ILLEGAL_ADDRESS"), "{seen}");
        assert_eq!(wait_for(&gpu, failed).expect_err("the same fault").to_string(), seen);
    });
}

#[test]
fn every_stream_of_the_device_names_its_suspect() {
    apart("fault::every_stream_of_the_device_names_its_suspect", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(0);
        let (gate, add, first, second) = (Gate::close(&gpu), Add::load(&gpu), stream(&gpu), stream(&gpu));
        let block = block_of(&cuda, &first, 10, 1);
        wait_for(&gpu, first.mark().expect("no fault")).expect("no fault yet");
        let held = gate.hold(&second);
        let failed = add.launch_astray(&first, &block).expect("the fault comes later");
        let message = wait_for(&gpu, failed).expect_err("a fault").to_string();
        assert!(message.starts_with("a kernel failed on cuda:0, one of `add`, `gate`: "), "{message}");
        assert_eq!(wait_for(&gpu, held).expect_err("the same fault").to_string(), message);
        gate.open();
    });
}

#[test]
fn a_lost_device_is_no_end() {
    apart("fault::a_lost_device_is_no_end", &[], || {
        let cuda = open();
        let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
        let (here, there) = (stream(&gpu), stream(&other));
        let block = block_of(&cuda, &here, 10, 1);
        wait_for(&gpu, here.mark().expect("no fault")).expect("no fault yet");
        stand_in().fail_device(0, 999);
        let message = here.fill(&block, 0).expect_err("a fault").to_string();
        assert!(message.starts_with("cuda:0 was lost: CUDA_ERROR_UNKNOWN (unknown error)"), "{message}");
        assert!(holds(&cuda, &there, &block_of(&cuda, &there, 10, 6), 6));
        cuda.synchronize();
    });
}

#[test]
fn a_peer_copy_blames_the_device_that_failed() {
    apart("fault::a_peer_copy_blames_the_device_that_failed", &[], || {
        let cuda = open();
        let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
        let (here, there) = (stream(&gpu), stream(&other));
        let (near, far) = (block_of(&cuda, &here, 10, 1), block_of(&cuda, &there, 10, 2));
        let given = there.mark().expect("no fault");
        wait_for(&other, given).expect("no fault yet");
        stand_in().fail_device(1, 999);
        let message = here.copy((&near, 0), (&far, 0), 80).expect_err("a fault").to_string();
        assert!(message.starts_with("cuda:1 was lost"), "{message}");
        assert!(gpu.fault().is_none() && other.fault().is_some());
        assert!(holds(&cuda, &here, &near, 1));
    });
}

#[test]
fn pinned_memory_outlives_the_device_that_used_it() {
    apart("fault::pinned_memory_outlives_the_device_that_used_it", &[], || {
        let cuda = open();
        let (gpu, other) = (cuda.gpu(0), cuda.gpu(1));
        let (gate, here, there) = (Gate::close(&gpu), stream(&gpu), stream(&other));
        let block = here.allocate(64).expect("memory");
        gate.hold(&here);
        let flight = here.upload(&block, 0, cuda.pinned(64).expect("memory")).expect("an upload");
        stand_in().fail_device(0, 719);
        assert!(flight.take().expect_err("a fault").to_string().contains("CUDA_ERROR_LAUNCH_FAILED"));
        gate.open();
        for value in 0..100 {
            assert!(holds(&cuda, &there, &block_of(&cuda, &there, 1000, value), value));
        }
    });
}
