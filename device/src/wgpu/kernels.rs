//! Pipelines: each kernel is compiled once for a device, when it is launched there first.

use std::collections::HashMap;
use std::sync::Arc;

use wgpu::naga::{ShaderStage, front::wgsl};
use wgpu::{BindGroupLayoutEntry, BindingType, BufferBindingType, ShaderStages};

use super::errors::scoped;
use super::inbox::Shared;
use crate::arguments::{Slot, Slots};
use crate::kernel::Code;
use crate::launch::Grid;
use crate::operation::AccessMode;

/// Buffers that a kernel has at most: bits of `present`.
const MAX_BUFFERS: usize = 32;

/// A kernel as its device runs it.
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// Where its parameters stand in the arguments.
    pub(super) slots: Vec<Slot>,
    workgroup: [u32; 3],
}

/// Source, name, parameters and block shape.
type Key = (usize, &'static str, usize, Option<[u32; 3]>);

/// The kernels that have been compiled, or could not be.
#[derive(Default)]
pub(super) struct Pipelines {
    made: HashMap<Key, Result<Arc<Pipeline>, String>>,
}

impl Pipelines {
    /// The pipeline of a kernel, or why there is none: what the compiler said.
    pub(super) fn of(&mut self, shared: &Shared, code: &Code) -> Result<Arc<Pipeline>, String> {
        let source = code.wgsl.expect("a launch is refused if its kernel has no source for the device");
        let key = (source.as_ptr().addr(), code.name, code.describe as usize, code.block);
        self.made.entry(key).or_insert_with(|| Pipeline::make(shared, code, source).map(Arc::new)).clone()
    }
}

impl Pipeline {
    fn make(shared: &Shared, code: &Code, source: &str) -> Result<Self, String> {
        let mut slots = Slots::default();
        (code.describe)(&mut slots);
        let workgroup = workgroup(source, code.name)?;
        if let Some(block) = code.block.filter(|block| *block != workgroup) {
            return Err(format!(
                "the workgroup size of its WGSL source is {workgroup:?}, and its block shape {block:?}"
            ));
        }
        let entries = entries(&slots.list);
        check_count(entries.len() - 1, &shared.limits)?;
        let (device, label) = (&shared.device, Some(code.name));
        scoped(device, || {
            let source = wgpu::ShaderSource::Wgsl(source.into());
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
            let layout = wgpu::BindGroupLayoutDescriptor { label, entries: &entries };
            let layout = device.create_bind_group_layout(&layout);
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(code.name),
                compilation_options: Default::default(),
                cache: None,
            });
            Pipeline { pipeline, layout, slots: slots.list, workgroup }
        })
    }

    /// How many workgroups cover a grid.
    pub(super) fn groups(&self, grid: Grid, limits: &wgpu::Limits) -> Result<[u32; 3], String> {
        let most = limits.max_compute_workgroups_per_dimension;
        let mut groups = [grid.x, grid.y, grid.z];
        for (axis, (groups, size)) in ["x", "y", "z"].iter().zip(groups.iter_mut().zip(self.workgroup)) {
            let wanted = groups.div_ceil(size);
            if wanted > most {
                return Err(format!(
                    "a grid of {groups} along {axis} takes {wanted} workgroups of {size}, and this device has at most {most} \
                     along an axis; spread the grid over more axes, or let an invocation do more"
                ));
            }
            *groups = wanted;
        }
        Ok(groups)
    }
}

/// The size of the workgroups of a kernel, as its source says. The source is not trusted to be right.
fn workgroup(source: &str, name: &str) -> Result<[u32; 3], String> {
    let module = wgsl::parse_str(source).map_err(|error| {
        error.emit_to_string_with_path(source, &format!("{name}.wgsl")).trim_end().to_owned()
    })?;
    let entry = module.entry_points.iter().find(|entry| entry.name == name);
    match entry.filter(|entry| entry.stage == ShaderStage::Compute) {
        Some(entry) if !entry.workgroup_size.contains(&0) => Ok(entry.workgroup_size),
        Some(_) => Err(format!("the workgroup size of `{name}` is zero along an axis")),
        None => Err(format!("the WGSL source has no entry point `@compute fn {name}`")),
    }
}

/// The bindings of a kernel: its buffers, then its uniform.
fn entries(slots: &[Slot]) -> Vec<BindGroupLayoutEntry> {
    let storage = |mode| BufferBindingType::Storage { read_only: mode == AccessMode::Read };
    let buffers = slots.iter().filter_map(|slot| slot.buffer).map(storage);
    let entry = |(binding, ty)| BindGroupLayoutEntry {
        binding,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    (0..).zip(buffers.chain([BufferBindingType::Uniform])).map(entry).collect()
}

fn check_count(buffers: usize, limits: &wgpu::Limits) -> Result<(), String> {
    let most = MAX_BUFFERS.min(limits.max_storage_buffers_per_shader_stage as usize);
    if buffers <= most {
        return Ok(());
    }
    Err(format!("it has {buffers} buffers, and a kernel of this device has at most {most}"))
}
