//! Memory that another process opens.

use chare_device::cuda::{CudaError, ExportedBlock};

use crate::apart::{apart, child};
use crate::setting::*;

fn to_text(exported: &ExportedBlock) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ExportedBlock { uuid, handle, offset_bytes, len_bytes } = exported;
    format!("{} {} {offset_bytes} {len_bytes}", hex(uuid), hex(handle))
}

fn from_text(text: &str) -> ExportedBlock {
    let words: Vec<&str> = text.split_whitespace().collect();
    let byte =
        |word: &str, index: usize| u8::from_str_radix(&word[2 * index..2 * index + 2], 16).expect("hex");
    ExportedBlock {
        uuid: std::array::from_fn(|index| byte(words[0], index)),
        handle: std::array::from_fn(|index| byte(words[1], index)),
        offset_bytes: words[2].parse().expect("a number"),
        len_bytes: words[3].parse().expect("a number"),
    }
}

/// In the other process: adds to two blocks of the first one's.
#[test]
fn the_other_process() {
    let Ok(text) = std::env::var("EXPORTED") else { return };
    let cuda = open();
    let gpu = cuda.gpu(1);
    let (add, stream) = (Add::load(&gpu), stream(&gpu));
    for exported in text.split(';').map(from_text) {
        let block = gpu.import(&exported).expect("the exporter lives");
        assert!(matches!(block.export(), Err(CudaError::NotExportable)));
        assert!(matches!(cuda.gpu(0).import(&exported), Err(CudaError::ForeignDevice { .. })));
        add.launch(&stream, &block, 30).expect("a launch");
        wait_for(&gpu, stream.mark().expect("no fault")).expect("no fault");
    }
    // What does not lie in the slab is refused, whatever else the bytes say.
    let exported = text.split(';').map(from_text).next().expect("there are two");
    for (offset_bytes, len_bytes) in [(u64::MAX, 2), (exported.offset_bytes, u64::MAX), (1 << 40, 1)] {
        let wrong = gpu.import(&ExportedBlock { offset_bytes, len_bytes, ..exported });
        assert!(matches!(wrong, Err(CudaError::Range { .. })), "{wrong:?}");
    }
    // Both lie in one slab.
    assert_eq!(stand_in().call_count("cuIpcOpenMemHandle_v2"), 1);
    println!("the other process is done");
}

#[test]
fn blocks_are_opened_by_another_process() {
    apart("ipc::blocks_are_opened_by_another_process", &[], || {
        let cuda = open();
        let gpu = cuda.gpu(1);
        let stream = stream(&gpu);
        let blocks = [block_of(&cuda, &stream, 100, 1), block_of(&cuda, &stream, 200, 2)];
        wait_for(&gpu, stream.mark().expect("no fault")).expect("no fault");
        let exported = blocks.each_ref().map(|block| block.export().expect("a handle"));
        assert_eq!(stand_in().call_count("cuIpcGetMemHandle"), 1, "both lie in one slab");
        assert!(gpu.import(&exported[0]).is_err(), "a process does not open its own memory");
        let text = exported.each_ref().map(to_text).join(";");
        let mut other = child("ipc::the_other_process", &[("EXPORTED", &text)]);
        let output = other.output().expect("it can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains("the other process is done"),
            "{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(holds(&cuda, &stream, &blocks[0], 31) && holds(&cuda, &stream, &blocks[1], 32));
        // Somebody may have it open still.
        let slab_bytes = gpu.taken_bytes();
        drop(blocks);
        gpu.trim().expect("no fault");
        assert_eq!((gpu.live_bytes(), gpu.taken_bytes()), (0, slab_bytes));
    });
}
