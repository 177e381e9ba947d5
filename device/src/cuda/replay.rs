//! Replays of graphs of accounts: which executable graph a replay finds, and how one is made.
//!
//! An executable graph has its arguments in it, addresses of buffers included. A graph of an account keeps a few, its *variants*,
//! by the device and the arguments of the replays that they were made for. A replay with the arguments of one is one call of the driver's; a program that
//! swaps two buffers in turn has two. Else a variant is patched, or one is made. Variants keep no memory: a replay is an operation, which
//! keeps its buffers, and one whose buffers are gone is found again only by buffers that have their addresses.

use super::backend::Gpus;
use super::error::CudaError;
use super::graph::{Graph, Recording};
use super::kernel::{Extent, Parameters};
use super::stream::Stream;
use crate::arguments::{Arguments, Slots};
use crate::backend::Block as Name;
use crate::graph::{LaunchStep, Plan, Step};
use crate::operation::{AccessMode, Operation};

/// Variants of one graph that are kept.
const VARIANTS: usize = 4;

/// The executable graphs of one graph, the one that was replayed last at the end.
#[derive(Default)]
struct Variants(Vec<Variant>);

struct Variant {
    /// The ordinal of its device, which it cannot leave.
    device: usize,
    arguments: Vec<u8>,
    graph: Graph,
}

impl Gpus {
    /// Gives the replay of a graph to the driver.
    pub(super) fn replay(
        &self,
        stream: &Stream,
        operation: &Operation,
        plan: &Plan,
    ) -> Result<(), CudaError> {
        let mut made = plan.made.lock().expect("nothing panics under this lock");
        let made = made.get_or_insert_with(|| Box::new(Variants::default()));
        let Variants(variants) = made.downcast_mut().expect("a graph belongs to one set of devices");
        let arguments = operation.arguments.bytes();
        let is_same =
            |variant: &Variant| variant.device == operation.device && variant.arguments == arguments;
        if let Some(index) = variants.iter().position(is_same) {
            let found = variants.remove(index);
            variants.push(found);
        } else {
            self.add_variant(operation, plan, variants)?;
        }
        let variant = variants.last().expect("there is one for these arguments");
        stream.replay(&variant.graph).map(drop)
    }

    /// Patches a variant for the arguments of an operation, or makes one; it will be the last.
    fn add_variant(
        &self,
        operation: &Operation,
        plan: &Plan,
        variants: &mut Vec<Variant>,
    ) -> Result<(), CudaError> {
        let arguments = operation.arguments.bytes();
        let body = |recording: &mut Recording<'_>| self.record(recording, operation, plan);
        // One for the same buffers is not wanted any more when its scalars have changed; of others the oldest.
        let buffers = buffers_of(plan);
        let is_alike = |variant: &Variant| {
            variant.device == operation.device
                && buffers.iter().all(|at| variant.arguments[at.clone()] == arguments[at.clone()])
        };
        let alike = variants.iter().position(is_alike);
        let index = alike.or_else(|| (variants.len() == VARIANTS).then_some(0));
        // If what follows fails there is one less.
        let other = index.map(|index| variants.remove(index));
        let variant = match other.filter(|other| other.device == operation.device) {
            None => {
                let graph = self.gpus[operation.device].record(plan.name, body)?;
                Variant { device: operation.device, arguments: arguments.to_vec(), graph }
            }
            Some(mut variant) => {
                variant.graph.update(body)?;
                variant.arguments.clear();
                variant.arguments.extend_from_slice(arguments);
                variant
            }
        };
        variants.push(variant);
        Ok(())
    }

    /// Records the steps of a graph, with the arguments of an operation.
    fn record(
        &self,
        recording: &mut Recording<'_>,
        operation: &Operation,
        plan: &Plan,
    ) -> Result<(), CudaError> {
        let memory = self.memory();
        let find = |name: Name| memory.get(&super::backend::address_of(name));
        let block = |index: usize| {
            find(operation.accesses[index].memory.block()).expect("an operation keeps its memory")
        };
        let mut filled = Arguments::default();
        let mut parameters = Parameters::new();
        for step in &plan.steps {
            match step {
                Step::Launch(LaunchStep { code, launch, arguments }) => {
                    for (index, _) in arguments.uses.iter().filter(|(_, mode)| *mode == AccessMode::Zeroed) {
                        recording.fill(block(*index), 0)?;
                    }
                    let function = self.function(operation.device, code)?;
                    let grid = launch.grid();
                    arguments.fill(&operation.arguments, &mut filled);
                    parameters.pack(filled.bytes(), [grid.x, grid.y, grid.z]);
                    let extent = Extent::of(code, grid);
                    // SAFETY: these are the parameters of the kernel, as far as its declaration and its source agree. Each replay is
                    // an operation with these buffers, and keeps them until it has ended.
                    unsafe { recording.launch(&function, &extent, &parameters, &[]) }?;
                }
                Step::Copy { from, to } => {
                    let len_bytes = operation.accesses[*from].memory.len_bytes();
                    if len_bytes > 0 {
                        recording.copy((block(*to), 0), (block(*from), 0), len_bytes)?;
                    }
                }
                Step::Zero(index) => recording.fill(block(*index), 0)?,
            }
        }
        // SAFETY: as for the launches.
        unsafe { recording.forget_blocks() };
        Ok(())
    }
}

/// Where in the arguments of a graph its buffers stand.
fn buffers_of(plan: &Plan) -> Vec<std::ops::Range<usize>> {
    let mut slots = Slots::default();
    (plan.describe)(&mut slots);
    let buffers = slots.list.iter().filter(|slot| slot.buffer.is_some());
    buffers.map(|slot| slot.offset..slot.offset + slot.bytes).collect()
}
