// Packing all faces in one launch: see faces.rs. A face that is absent is skipped.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec3<u32>,
}

@group(0) @binding(0) var<storage, read> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> x_low: array<f32>;
@group(0) @binding(2) var<storage, read_write> x_high: array<f32>;
@group(0) @binding(3) var<storage, read_write> y_low: array<f32>;
@group(0) @binding(4) var<storage, read_write> y_high: array<f32>;
@group(0) @binding(5) var<storage, read_write> z_low: array<f32>;
@group(0) @binding(6) var<storage, read_write> z_high: array<f32>;
@group(0) @binding(7) var<uniform> arguments: Arguments;

fn face_len(face: u32) -> u32 {
    let dims = arguments.dims;
    return select(dims.x, dims.y, face < 2u) * select(dims.y, dims.z, face < 4u);
}

// Where cell `cell` of a face stands in the padded array, among the block's own cells.
fn place(face: u32, cell: u32) -> u32 {
    let dims = arguments.dims;
    let step_y = dims.z + 2u;
    let step_x = (dims.y + 2u) * step_y;
    let axis = face / 2u;
    let depth = select(1u, dims[axis], face % 2u == 1u);
    let row_len = select(dims.y, dims.z, face < 4u);
    let slow = cell / row_len + 1u;
    let fast = cell % row_len + 1u;
    switch axis {
        case 0u: { return depth * step_x + slow * step_y + fast; }
        case 1u: { return slow * step_x + depth * step_y + fast; }
        default: { return slow * step_x + fast * step_y + depth; }
    }
}

@compute @workgroup_size(256)
fn pack_faces_f32(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    var number = id.x;
    // One cell an invocation, if the grid has as many elements as the faces have cells; else several.
    let all = groups.x * 256u;
    let dims = arguments.dims;
    let cells = 2u * (dims.y * dims.z + dims.x * dims.z + dims.x * dims.y);
    for (; number < cells; number += all) {
        var cell = number;
        var face = 0u;
        while cell >= face_len(face) {
            cell -= face_len(face);
            face += 1u;
        }
        if (arguments.present >> (face + 1u) & 1u) == 0u {
            continue;
        }
        let at = place(face, cell);
        switch face {
            case 0u: { x_low[cell] = u[at]; }
            case 1u: { x_high[cell] = u[at]; }
            case 2u: { y_low[cell] = u[at]; }
            case 3u: { y_high[cell] = u[at]; }
            case 4u: { z_low[cell] = u[at]; }
            default: { z_high[cell] = u[at]; }
        }
    }
}
