//! The code of kernels on the `cuda` backend: compiled when it is launched, launched as it says, refused with reasons.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use chare_device::cuda::{Compiler, ImageKind};
use chare_device::{CUDA_PRELUDE, Capability, DeviceError, Grid, InOut, Kernel, Launch, kernel};
use cuda_stand_in::Parameter;

use crate::apart::apart;
use crate::compile::has_nvrtc;
use crate::kernels::register;
use crate::neutral::{ADD, open, values};
use crate::setting::stand_in;

kernel! {
    /// Adds to half of a buffer.
    const HALF: fn half(factor: f64, values: InOut<f32>) {
        rust: half_in_rust,
        cuda: "KERNEL half(f64 factor, InOut<f32> values, Grid grid) {
            u32 i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < grid.x && i < values.len / 2) values[i] *= (f32)factor;
        }",
    }
}

fn half_in_rust(_: &Launch, (factor, values): (f64, &mut [f32])) {
    let half = values.len() / 2;
    values[..half].iter_mut().for_each(|x| *x *= factor as f32);
}

kernel! {
    const WRONG: fn wrong(values: InOut<u64>) {
        rust: |_: &Launch, _: (&mut [u64],)| (),
        cuda: "KERNEL wrong(InOut<u64> values, Grid grid) {
            values[0] = sum;
        }",
    }
}

#[test]
fn kernels_are_compiled_when_they_are_launched() {
    apart("code::kernels_are_compiled_when_they_are_launched", &[], || {
        if !has_nvrtc() {
            return;
        }
        let devices = open();
        register(&HALF);
        for device in devices.iter() {
            let account = device.account("compiled");
            let mut buffer = account.upload(vec![3.0_f32; 6]).expect("memory");
            account.launch(&HALF, 6, (0.5, &mut buffer)).expect("it compiles");
            account.launch(&HALF, 6, (4.0, &mut buffer)).expect("it is there");
            let values = account.download(&buffer).expect("it is taken").wait().expect("all is well");
            assert_eq!(values, [6.0, 6.0, 6.0, 3.0, 3.0, 3.0]);
        }
    });
}

#[test]
fn a_kernel_with_a_block_shape_is_launched_with_it() {
    apart("code::a_kernel_with_a_block_shape_is_launched_with_it", &[], || {
        const TILED: Kernel<(InOut<u64>,)> = Kernel::new("tiled", |_: &Launch, _: (&mut [u64],)| ())
            .with_ptx("kernel tiled")
            .with_block([16, 4, 2]);
        let devices = open();
        let (send, shapes) = channel();
        let send = Mutex::new(send);
        let number = Parameter::Value { bytes: 8 };
        let parameters = [Parameter::Address { align: 8 }, number, Parameter::Value { bytes: 12 }];
        stand_in().register("tiled", &parameters, move |geometry, arguments| {
            let shape = (geometry.grid, geometry.block, arguments.value::<[u32; 3]>(2));
            send.lock().expect("no test panics here").send(shape).expect("the test listens");
            Ok(())
        });
        let account = devices.get(0).account("tiled");
        let mut buffer = account.alloc::<u64>(1).expect("memory");
        for (grid, blocks) in [
            (Grid::new(16, 4, 2), [1, 1, 1]),
            (Grid::new(17, 9, 2), [2, 3, 1]),
            (TILED.blocks(Grid::new(5, 1, 7)), [5, 1, 7]),
        ] {
            account.launch(&TILED, grid, (&mut buffer,)).expect("it is taken").wait().expect("it runs");
            let shape = shapes.recv().expect("it has run");
            assert_eq!(shape, (blocks, [16, 4, 2], [grid.x, grid.y, grid.z]));
        }
        let twice = account.record::<(InOut<u64>,)>("twice", |recording, (mut values,)| {
            recording.launch(&TILED, Grid::new(17, 9, 2), (&mut values,))?;
            recording.launch(&TILED, TILED.blocks(2), (&mut values,))
        });
        twice.expect("it is recorded").replay((&mut buffer,)).expect("it is taken").wait().expect("it runs");
        assert_eq!(shapes.recv().expect("it has run"), ([2, 3, 1], [16, 4, 2], [17, 9, 2]));
        assert_eq!(shapes.recv().expect("it has run"), ([2, 1, 1], [16, 4, 2], [32, 4, 2]));
        // Nothing runs on a grid without threads.
        account
            .launch(&TILED, TILED.blocks(0), (&mut buffer,))
            .expect("it is taken")
            .wait()
            .expect("it ends");
        assert!(shapes.try_recv().is_err());
    });
}

#[test]
fn a_kernel_that_does_not_compile_is_an_error_of_the_launch() {
    apart("code::a_kernel_that_does_not_compile_is_an_error_of_the_launch", &[], || {
        let devices = open();
        let account = devices.get(0).account("wrong");
        let mut buffer = account.upload(vec![1_u64, 2]).expect("memory");
        let share = buffer.share();
        let error = account.launch(&WRONG, 1, (&mut buffer,)).expect_err("it does not compile");
        assert!(matches!(error, DeviceError::Kernel { .. }), "{error:?}");
        let message = error.to_string();
        if has_nvrtc() {
            assert!(message.starts_with("kernel `wrong` does not compile for sm_90:"), "{message}");
            assert!(message.contains("wrong.cu(2): error: identifier \"sum\" is undefined"), "{message}");
            assert!(message.contains("values[0] = sum;\n") && message.contains('^'), "{message}");
        } else {
            assert!(message.starts_with("kernel `wrong` is CUDA C, and there is no NVRTC"), "{message}");
        }
        // Nothing was enqueued, and all is as before.
        drop(share);
        assert_eq!(values(&account, &buffer), [1, 2]);
        account.launch(&ADD, 2, (&mut buffer, 1)).expect("it is taken");
        assert_eq!(values(&account, &buffer), [2, 3]);
    });
}

const TOO_NEW: Kernel<(InOut<u64>,)> = Kernel::new("too_new", |_: &Launch, _: (&mut [u64],)| ())
    .with_ptx(".version 9.1\n.target sm_90\n.visible .entry too_new()\n{ ret; }");
const MALFORMED: Kernel<(InOut<u64>,)> = Kernel::new("malformed", |_: &Launch, _: (&mut [u64],)| ())
    .with_ptx(".version 9.0\n.target sm_90\n.visible .entry malformed(.param .u64 a\n{ ret; }");
const NO_CODE: Kernel<(InOut<u64>,)> =
    Kernel::new("no_code", |_: &Launch, _: (&mut [u64],)| ()).with_ptx("nonsense");
const LOST: Kernel<(InOut<u64>,)> =
    Kernel::new("lost", |_: &Launch, _: (&mut [u64],)| ()).with_ptx("kernel another");

#[test]
fn code_that_the_driver_refuses_has_its_kernels_name_and_the_log() {
    apart("code::code_that_the_driver_refuses_has_its_kernels_name_and_the_log", &[], || {
        let devices = open();
        let account = devices.get(0).account("refused");
        let mut buffer = account.upload(vec![1_u64]).expect("memory");
        for (kernel, wanted) in [
            (
                TOO_NEW,
                "kernel `too_new` cannot be loaded on cuda:0: CUDA_ERROR_UNSUPPORTED_PTX_VERSION (the provided PTX was compiled \
                 with an unsupported toolchain); update the driver, or compile with a CUDA that is no newer than the \
                 driver's:\nptxas application ptx input, line 1; fatal   : Unsupported .version; current version is '9.0'",
            ),
            (
                MALFORMED,
                "kernel `malformed` cannot be loaded on cuda:0: CUDA_ERROR_INVALID_PTX (a PTX JIT compilation failed):\nptxas \
                 application ptx input, line 3; error   : Parsing error",
            ),
            (
                NO_CODE,
                "kernel `no_code` cannot be loaded on cuda:0: CUDA_ERROR_INVALID_IMAGE (device kernel image is invalid); it must \
                 be the text of PTX, or a whole cubin, and have the parameters of its declaration",
            ),
            (LOST, "the code loaded on cuda:0 has no kernel `lost`; declare it `extern \"C\" __global__`"),
        ] {
            let error = account.launch(&kernel, 1, (&mut buffer,)).expect_err("the driver refuses it");
            assert!(matches!(error, DeviceError::Kernel { .. }), "{error:?}");
            assert_eq!(error.to_string(), wanted);
        }
        // The device goes on, and all is as before.
        account.launch(&ADD, 1, (&mut buffer, 1)).expect("it is taken");
        assert_eq!(values(&account, &buffer), [2]);
    });
}

#[test]
fn a_kernel_without_source_is_an_error_of_the_launch() {
    apart("code::a_kernel_without_source_is_an_error_of_the_launch", &[], || {
        const BARE: Kernel<(InOut<u64>,)> = Kernel::new("bare", |_: &Launch, _: (&mut [u64],)| ());
        let devices = open();
        let account = devices.get(0).account("bare");
        let mut buffer = account.alloc::<u64>(1).expect("memory");
        let error = account.launch(&BARE, 1, (&mut buffer,)).expect_err("it is Rust").to_string();
        assert_eq!(
            error,
            "kernel `bare` has no CUDA C source, which its device wants; it is written in Rust; write one, or run with `--device host`"
        );
    });
}

kernel! {
    /// Adds what the compiler is told.
    const TOLD: fn told(buffer: InOut<u64>) {
        shared_bytes: 1024,
        rust: |_: &Launch, (buffer,): (&mut [u64],)| buffer.iter_mut().for_each(|x| *x += 5),
        cuda: "
            #ifndef STEP
            #define STEP 1
            #endif
            KERNEL told(InOut<u64> buffer, Grid grid) {
                u32 i = blockIdx.x * blockDim.x + threadIdx.x;
                if (i < buffer.len) buffer[i] += STEP;
            }",
        cuda_options: &["-DSTEP=5"],
        cubins: &[(Capability(7, 0), b"for other devices"), (Capability(7, 5), b"likewise")],
    }
}

#[test]
fn a_kernel_is_compiled_with_its_options() {
    apart("code::a_kernel_is_compiled_with_its_options", &[], || {
        if !has_nvrtc() {
            return;
        }
        let devices = open();
        register(&TOLD);
        let account = devices.get(0).account("told");
        let mut buffer = account.upload(vec![1_u64; 6]).expect("memory");
        account.launch(&TOLD, 6, (&mut buffer,)).expect("it compiles").wait().expect("it runs");
        assert_eq!(values(&account, &buffer), [6; 6]);
        // The same source with others is other code, which is compiled for itself.
        let error = account.launch(&TOLD.with_cuda_options(&["-DSTEP="]), 6, (&mut buffer,));
        let message = error.expect_err("a number is missing").to_string();
        assert!(message.contains("kernel `told` does not compile") && message.contains("STEP"), "{message}");
    });
}

#[test]
fn blocks_have_the_shared_memory_that_their_kernel_wants() {
    apart("code::blocks_have_the_shared_memory_that_their_kernel_wants", &[], || {
        const LARGE: Kernel<(InOut<u64>,)> = Kernel::new("large", |_: &Launch, _: (&mut [u64],)| ())
            .with_ptx("kernel large")
            .with_shared_bytes(100 << 10);
        const SMALL: Kernel<(InOut<u64>,)> = LARGE.with_shared_bytes(4 << 10);
        const HUGE: Kernel<(InOut<u64>,)> = LARGE.with_shared_bytes(1 << 20);
        let devices = open();
        let (send, sizes) = channel();
        let send = Mutex::new(send);
        let number = Parameter::Value { bytes: 8 };
        let parameters = [Parameter::Address { align: 8 }, number, Parameter::Value { bytes: 12 }];
        stand_in().register("large", &parameters, move |geometry, _| {
            send.lock().expect("no test panics here").send(geometry.shared_bytes).expect("the test listens");
            Ok(())
        });
        let account = devices.get(0).account("shared");
        let mut buffer = account.alloc::<u64>(1).expect("memory");
        for kernel in [LARGE, SMALL, LARGE] {
            account.launch(&kernel, 1, (&mut buffer,)).expect("it is taken").wait().expect("it runs");
        }
        let once = account.record::<(InOut<u64>,)>("once", |recording, (mut buffer,)| {
            recording.launch(&LARGE, 1, (&mut buffer,))
        });
        once.expect("it is recorded").replay((&mut buffer,)).expect("it is taken").wait().expect("it runs");
        let seen = sizes.try_iter().collect::<Vec<_>>();
        assert_eq!(seen, [100 << 10, 4 << 10, 100 << 10, 100 << 10]);
        let message = account.launch(&HUGE, 1, (&mut buffer,)).expect_err("there is less").to_string();
        let wanted =
            "it wants 1048576 bytes of shared memory a block (`shared_bytes`): CUDA_ERROR_INVALID_VALUE";
        assert!(message.contains("`large`") && message.contains(wanted), "{message}");
        account.launch(&SMALL, 1, (&mut buffer,)).expect("it is taken").wait().expect("all is as before");
    });
}

#[test]
fn a_device_gets_the_cubin_that_is_for_it() {
    apart("code::a_device_gets_the_cubin_that_is_for_it", &[], || {
        if !has_nvrtc() {
            return;
        }
        let devices = open();
        register(&HALF);
        let source = format!("{CUDA_PRELUDE}{}", HALF.cuda_source().expect("it has one"));
        let compiler = Compiler::new(None, ImageKind::Cubin);
        let image = compiler.compile("half", &source, &[], (9, 0)).expect("it compiles");
        let cubin: &'static [u8] = Vec::leak(image.bytes().to_vec());
        let bare = Kernel::<(f64, InOut<f32>)>::new("half", half_in_rust);
        let account = devices.get(0).account("shipped");
        let mut buffer = account.upload(vec![2.0_f32; 4]).expect("memory");
        let ours =
            bare.with_cubins(Vec::leak(vec![(Capability(8, 0), &b"not it"[..]), (Capability(9, 0), cubin)]));
        account.launch(&ours, 4, (0.5, &mut buffer)).expect("it is there").wait().expect("it runs");
        let values = account.download(&buffer).expect("it is taken").wait().expect("all is well");
        assert_eq!(values, [1.0, 1.0, 2.0, 2.0]);
        for (cubins, reason) in [
            (
                (Capability(9, 0), &cubin[..cubin.len() / 2]),
                "the cubin that the program has for it is not whole",
            ),
            ((Capability(8, 0), cubin), "the device is of 9.0, and the program has code for 8.0 only"),
        ] {
            let wrong = bare.with_cubins(Vec::leak(vec![cubins]));
            let message = account.launch(&wrong, 4, (0.5, &mut buffer)).expect_err("no code").to_string();
            assert!(message.contains("`half`") && message.contains(reason), "{message}");
            // What is compiled when it is needed is there all the same.
            let both = wrong.with_cuda(HALF.cuda_source().expect("it has one"));
            let launched = account.launch(&both, 4, (1.0, &mut buffer));
            assert_eq!(launched.is_ok(), reason.starts_with("the device"), "{reason}");
        }
    });
}
