// Unpacking edges in one launch: see edges.rs. An invocation a cell; an edge that is absent is skipped.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec2<u32>,
}

@group(0) @binding(0) var<storage, read> x_low: array<f32>;
@group(0) @binding(1) var<storage, read> x_high: array<f32>;
@group(0) @binding(2) var<storage, read> y_low: array<f32>;
@group(0) @binding(3) var<storage, read> y_high: array<f32>;
@group(0) @binding(4) var<storage, read_write> u: array<f32>;
@group(0) @binding(5) var<uniform> arguments: Arguments;

// Where cell `cell` of an edge stands in the padded array: among the ghosts.
fn place(edge: u32, cell: u32) -> u32 {
    let dims = arguments.dims;
    let row = dims.y + 2u;
    let depth = select(0u, select(dims.y, dims.x, edge < 2u) + 1u, edge % 2u == 1u);
    if edge < 2u {
        return depth * row + cell + 1u;
    }
    return (cell + 1u) * row + depth;
}

@compute @workgroup_size(256)
fn unpack_edges_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    var cell = id.x;
    var edge = 0u;
    while edge < 4u {
        let len = select(arguments.dims.x, arguments.dims.y, edge < 2u);
        if cell < len {
            break;
        }
        cell -= len;
        edge += 1u;
    }
    if edge == 4u || (arguments.present >> edge & 1u) == 0u {
        return;
    }
    let at = place(edge, cell);
    switch edge {
        case 0u: { u[at] = x_low[cell]; }
        case 1u: { u[at] = x_high[cell]; }
        case 2u: { u[at] = y_low[cell]; }
        default: { u[at] = y_high[cell]; }
    }
}
