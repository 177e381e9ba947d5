//! Turns operations into commands of wgpu.

use std::sync::Arc;

use wgpu::{BindGroupEntry, BindingResource, BufferBinding, BufferUsages, CommandEncoder};

use super::driver::Batch;
use super::errors::scoped;
use super::inbox::Shared;
use super::kernels::Pipelines;
use super::staging::{Belt, Chunk, Piece};
use super::stamps::{Notes, Stamps};
use crate::arguments::{Arguments, Slot};
use crate::backend::Block;
use crate::graph::{LaunchStep, Plan, Step};
use crate::kernel::Code;
use crate::launch::Grid;
use crate::memory::Memory;
use crate::operation::{AccessMode, Command, HostRange, Operation};

/// What is bound in the place of a buffer that is absent.
const DUMMY_BYTES: u64 = 256;

/// Alignment of the scalars in the uniform of a kernel.
const SCALAR_ALIGN: usize = 16;

/// Makes commands, and has what they need.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    pipelines: Pipelines,
    pub(super) uploads: Belt,
    pub(super) downloads: Belt,
    pub(super) uniforms: Belt,
    /// Those that no batch uses.
    stamps: Vec<Stamps>,
    /// Bound in the place of absent buffers that are read, and of those that are written: one after the other, since
    /// two bindings that are written may not overlap.
    dummies: [wgpu::Buffer; 2],
}

/// Why nothing was recorded.
type Said = String;

impl Recorder {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, Said> {
        let belt = |usage| Belt::new(&shared, usage);
        let uploads = belt(BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC);
        let downloads = belt(BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        let uniforms = belt(BufferUsages::UNIFORM | BufferUsages::COPY_DST);
        let dummy = |count: u64| shared.make_buffer(count * DUMMY_BYTES, BufferUsages::STORAGE, false);
        let dummies = [dummy(1)?, dummy(shared.limits.max_storage_buffers_per_shader_stage.into())?];
        let pipelines = Pipelines::default();
        let stamps = Vec::new();
        Ok(Recorder { shared, pipelines, uploads, downloads, uniforms, stamps, dummies })
    }

    /// Adds the commands of an operation to a batch, which gets none if this fails. What it downloads will be in the piece returned; what
    /// an import brings is `imported`.
    pub(super) fn record(
        &mut self,
        batch: &mut Batch,
        operation: &Operation,
        imported: Option<&[u8]>,
    ) -> Result<Option<Piece>, Said> {
        let access = |index: usize| &operation.accesses[index].memory;
        let stamped = batch.stamp_count();
        let notes = if operation.is_timed { self.notes(batch) } else { Notes::default() };
        let recorded = self.encode(batch, |recorder, batch, encoder| {
            for (from, to, bytes) in operation.snapshot_copies() {
                recorder.copy(encoder, from, to, bytes);
            }
            match &operation.command {
                Command::Launch { code, launch } => {
                    let accesses = operation.accesses.iter().map(|access| (&*access.memory, access.mode));
                    let accesses = accesses.collect::<Vec<_>>();
                    let given = (&operation.arguments, &*accesses);
                    recorder.launch(batch, encoder, given, (code, launch.grid()), notes)?;
                }
                Command::Graph(plan) => {
                    let is_launch = |step: &Step| matches!(step, Step::Launch(_));
                    let first = plan.steps.iter().position(is_launch);
                    let last = plan.steps.iter().rposition(is_launch);
                    for (index, step) in plan.steps.iter().enumerate() {
                        let notes = notes.of_step(first == Some(index), last == Some(index));
                        recorder.step(batch, encoder, operation, step, notes)?;
                    }
                }
                Command::Copy => match imported {
                    Some(bytes) => recorder.upload(batch, encoder, (access(1), 0), bytes)?,
                    None => {
                        let (from, to) = (access(0), access(1));
                        recorder.copy(encoder, from.block(), to.block(), from.len_bytes());
                    }
                },
                Command::Zero => recorder.zero(encoder, access(0)),
                Command::Upload(HostRange { address, bytes, at_bytes }) => {
                    // SAFETY: it is valid until the operation has ended, and nobody writes it before.
                    let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr(), *bytes) };
                    recorder.upload(batch, encoder, (access(0), *at_bytes), bytes)?;
                }
                Command::Download(HostRange { bytes, at_bytes, .. }) => {
                    return recorder.download(batch, encoder, (access(0), *at_bytes), *bytes);
                }
                Command::Code { name, .. } => unreachable!("`{name}` is for CUDA"),
                Command::Fence => {}
            }
            Ok(None)
        });
        if let (Err(_), Some(stamps)) = (&recorded, &mut batch.stamps) {
            stamps.truncate(stamped);
        }
        recorded
    }

    /// What an operation that is timed is to note; nothing if the device cannot.
    fn notes(&mut self, batch: &mut Batch) -> Notes {
        if batch.stamps.is_none() {
            batch.stamps = self.stamps.pop().or_else(|| Stamps::new(&self.shared));
        }
        batch.stamps.as_mut().and_then(Stamps::take).unwrap_or_default()
    }

    /// Adds what brings the stamps of a batch to its downloads. If that fails there are none.
    pub(super) fn resolve(&mut self, batch: &mut Batch) {
        if batch.stamp_count() == 0 {
            return;
        }
        let resolved = self.encode(batch, |recorder, batch, encoder| {
            let Some(stamps) = &batch.stamps else { return Ok(None) };
            let piece = recorder.downloads.cut(&recorder.shared, &mut batch.downloads, stamps.bytes())?;
            stamps.resolve(encoder, &batch.downloads[piece.chunk], piece);
            Ok(Some(piece))
        });
        if let (Ok(Some(piece)), Some(stamps)) = (resolved, &mut batch.stamps) {
            stamps.come_to(piece);
        }
    }

    /// Takes back the stamps of a batch that has ended.
    pub(super) fn give_back(&mut self, mut stamps: Stamps) {
        stamps.clear();
        self.stamps.push(stamps);
    }

    /// Adds the commands of one step of a graph.
    fn step(
        &mut self,
        batch: &mut Batch,
        encoder: &mut CommandEncoder,
        operation: &Operation,
        step: &Step,
        notes: Notes,
    ) -> Result<(), Said> {
        let memory = |index: usize| &*operation.accesses[index].memory;
        match step {
            Step::Launch(LaunchStep { code, launch, arguments }) => {
                let mut filled = Arguments::default();
                arguments.fill(&operation.arguments, &mut filled);
                let accesses = arguments.uses.iter().map(|&(index, mode)| (memory(index), mode));
                let accesses = accesses.collect::<Vec<_>>();
                self.launch(batch, encoder, (&filled, &accesses), (code, launch.grid()), notes)?;
            }
            Step::Copy { from, to } => {
                let (from, to) = (memory(*from), memory(*to));
                self.copy(encoder, from.block(), to.block(), from.len_bytes());
            }
            Step::Zero(index) => self.zero(encoder, memory(*index)),
        }
        Ok(())
    }

    /// The kernel of a graph that cannot be recorded: each launch is recorded by itself, and given up.
    #[cold]
    pub(super) fn find_wrong(
        &mut self,
        batch: &mut Batch,
        operation: &Operation,
        plan: &Plan,
    ) -> Option<&'static str> {
        let (before, mut wrong) = (batch.commands.len(), None);
        for step in &plan.steps {
            if let Step::Launch(LaunchStep { code, .. }) = step
                && wrong.is_none()
                && self
                    .encode(batch, |recorder, batch, encoder| {
                        recorder.step(batch, encoder, operation, step, Notes::default())
                    })
                    .is_err()
            {
                wrong = Some(code.name);
            }
        }
        batch.commands.truncate(before);
        wrong
    }

    /// Adds a download for a copy to another device.
    pub(super) fn record_export(
        &mut self,
        batch: &mut Batch,
        memory: &Memory,
    ) -> Result<Option<Piece>, Said> {
        self.encode(batch, |recorder, batch, encoder| {
            recorder.download(batch, encoder, (memory, 0), memory.len_bytes())
        })
    }

    /// Records one command buffer.
    fn encode<R>(
        &mut self,
        batch: &mut Batch,
        record: impl FnOnce(&mut Self, &mut Batch, &mut CommandEncoder) -> Result<R, Said>,
    ) -> Result<R, Said> {
        let shared = self.shared.clone();
        let recorded: Result<Result<_, Said>, Said> = scoped(&shared.device, || {
            let mut encoder = shared.device.create_command_encoder(&Default::default());
            let value = record(self, batch, &mut encoder)?;
            Ok((value, encoder.finish()))
        });
        let (value, commands) = recorded??;
        batch.commands.push(commands);
        Ok(value)
    }

    fn copy(&self, encoder: &mut CommandEncoder, from: Block, to: Block, bytes: usize) {
        if bytes > 0 {
            let (from, to) = (self.shared.buffer(from), self.shared.buffer(to));
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, whole_words(bytes));
        }
    }

    fn zero(&self, encoder: &mut CommandEncoder, memory: &Memory) {
        if memory.len_bytes() > 0 {
            let buffer = self.shared.buffer(memory.block());
            encoder.clear_buffer(&buffer, 0, Some(whole_words(memory.len_bytes())));
        }
    }

    /// Puts bytes where a copy can take them from.
    fn stage<'a>(&mut self, batch: &'a mut Batch, bytes: &[u8]) -> Result<(&'a Chunk, Piece), Said> {
        let piece = self.uploads.cut(&self.shared, &mut batch.uploads, bytes.len() as u64)?;
        piece.write(&batch.uploads, bytes)?;
        Ok((&batch.uploads[piece.chunk], piece))
    }

    fn upload(
        &mut self,
        batch: &mut Batch,
        encoder: &mut CommandEncoder,
        (to, at_bytes): (&Memory, usize),
        bytes: &[u8],
    ) -> Result<(), Said> {
        if !bytes.is_empty() {
            let (chunk, piece) = self.stage(batch, bytes)?;
            let to = self.shared.buffer(to.block());
            encoder.copy_buffer_to_buffer(&chunk.buffer, piece.offset, &to, at_bytes as u64, piece.bytes);
        }
        Ok(())
    }

    /// The piece that will hold what is in `from`, unless that is empty.
    fn download(
        &mut self,
        batch: &mut Batch,
        encoder: &mut CommandEncoder,
        (from, at_bytes): (&Memory, usize),
        len_bytes: usize,
    ) -> Result<Option<Piece>, Said> {
        if len_bytes == 0 {
            return Ok(None);
        }
        let piece = self.downloads.cut(&self.shared, &mut batch.downloads, len_bytes as u64)?;
        let (from, to) = (self.shared.buffer(from.block()), &batch.downloads[piece.chunk].buffer);
        encoder.copy_buffer_to_buffer(&from, at_bytes as u64, to, piece.offset, piece.bytes);
        Ok(Some(piece))
    }

    fn launch(
        &mut self,
        batch: &mut Batch,
        encoder: &mut CommandEncoder,
        (arguments, accesses): (&Arguments, &[(&Memory, AccessMode)]),
        (code, grid): (&Code, Grid),
        notes: Notes,
    ) -> Result<(), Said> {
        let shared = self.shared.clone();
        let pipeline = self.pipelines.of(&shared, code)?;
        let [x, y, z] = pipeline.groups(grid, &shared.limits)?;
        for (memory, _) in accesses.iter().filter(|(_, mode)| *mode == AccessMode::Zeroed) {
            self.zero(encoder, memory);
        }
        let bound = self.bound(arguments, accesses, &pipeline.slots)?;
        let uniform = uniform(arguments, &pipeline.slots, grid, &bound);
        let (staged, from) = self.stage(batch, &uniform)?;
        let staged = staged.buffer.clone();
        let to = self.uniforms.cut(&shared, &mut batch.uniforms, uniform.len() as u64)?;
        let uniforms = &batch.uniforms[to.chunk].buffer;
        encoder.copy_buffer_to_buffer(&staged, from.offset, uniforms, to.offset, to.bytes);
        let binding = |buffer, offset, bytes| {
            let size = std::num::NonZeroU64::new(bytes);
            BindingResource::Buffer(BufferBinding { buffer, offset, size })
        };
        let buffers = bound.iter().map(|bound| binding(&bound.buffer, bound.offset, bound.bytes));
        let resources = buffers.chain([binding(uniforms, to.offset, to.bytes)]);
        let entries: Vec<_> =
            (0..).zip(resources).map(|(binding, resource)| BindGroupEntry { binding, resource }).collect();
        let group = shared.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(code.name),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let timestamp_writes = batch.stamps.as_ref().and_then(|stamps| stamps.writes(notes));
        let descriptor = wgpu::ComputePassDescriptor { label: Some(code.name), timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(x, y, z);
        Ok(())
    }

    /// What each buffer parameter is bound to.
    fn bound(
        &self,
        arguments: &Arguments,
        accesses: &[(&Memory, AccessMode)],
        slots: &[Slot],
    ) -> Result<Vec<Bound>, Said> {
        // In the order of the parameters, without those that are absent.
        let mut accesses = accesses.iter().map(|(memory, _)| *memory);
        let mut bound = Vec::new();
        for slot in slots {
            let Some(mode) = slot.buffer else { continue };
            let word = arguments.word(slot.offset);
            let memory = if word == 0 { None } else { accesses.next() };
            bound.push(match memory.filter(|memory| memory.len_bytes() > 0) {
                Some(memory) => self.present(memory)?,
                None => self.absent(mode, bound.len()),
            });
        }
        Ok(bound)
    }

    fn present(&self, memory: &Memory) -> Result<Bound, Said> {
        let bytes = whole_words(memory.len_bytes());
        let most = self.shared.limits.max_storage_buffer_binding_size;
        if bytes > most {
            return Err(format!(
                "it was given a buffer of {bytes} bytes, and a kernel of this device sees at most {most} of a buffer; cut it \
                 into several"
            ));
        }
        let buffer = self.shared.buffer(memory.block());
        Ok(Bound { buffer, offset: 0, bytes, is_present: true })
    }

    fn absent(&self, mode: AccessMode, binding: usize) -> Bound {
        let is_read = mode == AccessMode::Read;
        let buffer = self.dummies[usize::from(!is_read)].clone();
        let offset = if is_read { 0 } else { binding as u64 * DUMMY_BYTES };
        Bound { buffer, offset, bytes: DUMMY_BYTES, is_present: false }
    }
}

/// What a buffer parameter is bound to.
struct Bound {
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: u64,
    is_present: bool,
}

/// The uniform of a launch: the grid, the present buffers, and the scalars.
fn uniform(arguments: &Arguments, slots: &[Slot], grid: Grid, bound: &[Bound]) -> Vec<u8> {
    let bits = bound.iter().enumerate().map(|(binding, bound)| u32::from(bound.is_present) << binding);
    let present = bits.fold(0, |all, bit| all | bit);
    let mut uniform = bytemuck::cast_slice(&[grid.x, grid.y, grid.z, present]).to_vec();
    for slot in slots.iter().filter(|slot| slot.buffer.is_none()) {
        uniform.extend_from_slice(&arguments.bytes()[slot.offset..slot.offset + slot.bytes]);
        uniform.resize(uniform.len().next_multiple_of(SCALAR_ALIGN), 0);
    }
    uniform
}

/// Blocks are made of whole words, whatever is asked for.
fn whole_words(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT)
}
