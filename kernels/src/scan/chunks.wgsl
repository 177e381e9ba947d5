// Scans of chunks: see mod.rs. A workgroup of 256 invocations for each chunk of 1024 elements: an invocation adds up four neighbours, the
// workgroup scans the sums of its invocations, and each goes over its four again. What a `Number` is stands before this text.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) inclusive: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Number>;
@group(0) @binding(1) var<storage, read_write> sums: array<Number>;
@group(0) @binding(2) var<storage, read_write> totals: array<Number>;
@group(0) @binding(3) var<uniform> arguments: Arguments;

var<workgroup> scanned: array<Number, 256>;

fn scan(chunk: u32, number: u32) {
    // An empty buffer is not there.
    let len = select(0u, arrayLength(&x), (arguments.present & 1u) != 0u);
    let start = chunk * 1024u + number * 4u;
    var own: array<Number, 4>;
    var sum = Number(0);
    for (var i = 0u; i < 4u; i++) {
        if start + i < len {
            own[i] = x[start + i];
        }
        sum += own[i];
    }
    scanned[number] = sum;
    workgroupBarrier();
    for (var step = 1u; step < 256u; step *= 2u) {
        var before = Number(0);
        if number >= step {
            before = scanned[number - step];
        }
        workgroupBarrier();
        scanned[number] += before;
        workgroupBarrier();
    }
    var running = Number(0);
    if number > 0u {
        running = scanned[number - 1u];
    }
    for (var i = 0u; i < 4u; i++) {
        let before = running;
        running += own[i];
        if start + i < len {
            sums[start + i] = select(before, running, arguments.inclusive != 0u);
        }
    }
    if number == 255u {
        totals[chunk] = scanned[255];
    }
}

@compute @workgroup_size(256)
fn scan_chunks_u32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) number: u32) {
    scan(chunk.x, number);
}

@compute @workgroup_size(256)
fn scan_chunks_f32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) number: u32) {
    scan(chunk.x, number);
}
