//! A point of a graph as a chare: every input comes as a message of its own, from the point itself as well, and the task runs
//! in the method that takes the last one.
//!
//! Plain entries are the cheapest means that the runtime offers for this. A coroutine that awaits a channel for each neighbour
//! takes half as long again for a task, with the point's own output kept in a variable even: it is suspended at most steps,
//! and awaits inputs in one order while they come in another. What is sent is the words themselves, not an `enum` of a pair
//! and something larger, which cost a third more: values that are written in parts and moved as a whole wait in the
//! processor. That is why outputs of the usual size have an entry of their own.
//!
//! Invariant: `arrived` and `inputs` are rings of the next `capacity` steps; what is filed in them belongs to no step before
//! `next`. A point whose inputs come from points that do not wait for it may be any number of steps behind them; the ring
//! then grows, and is as large from then on.

use chare::prelude::*;
use chare_benches::taskbench::{Graph, Pair, SCRATCH_MARK};

/// Steps that neighbours that wait for each other are ahead, and some more.
const FIRST_CAPACITY: usize = 8;

/// An output that is larger than usual: one allocation, whoever takes it.
type Many = Shared<Box<[Pair]>>;

/// A task that takes an output in.
struct Dependent {
    point: usize,
    element: Element<Point>,
    place: u32,
}

/// What depends on whom at the steps of one set.
struct Set {
    inputs: u32,
    dependents: Vec<Dependent>,
}

/// The inputs of each step that have come, by their places in the list of dependencies.
enum Inputs {
    /// Of the usual size.
    One(Vec<[Pair; 1]>),
    Many(Vec<Many>),
}

/// A point of a graph.
pub(crate) struct Point {
    graph: Graph,
    point: usize,
    sets: Vec<Set>,
    /// The step whose task runs next.
    next: usize,
    /// The inputs that it needs; unreachable while the run has not begun.
    needed: u32,
    executed: u64,
    arrived: Vec<u32>,
    inputs: Inputs,
    places: usize,
    scratch: Vec<u64>,
    finished: Option<Callback<u64>>,
}

#[chare(index = usize)]
impl Point {
    fn new(cx: &Cx<Self>, graph: Graph) -> Self {
        let point = cx.index();
        let sets: Vec<Set> = (0..graph.dset_count()).map(|dset| Set::new(cx, &graph, dset)).collect();
        let places = (0..graph.dset_count()).map(|dset| count_deps(&graph, dset, point)).max().unwrap_or(0);
        let mut scratch = vec![0; graph.scratch_bytes / size_of::<u64>()];
        if let Some(first) = scratch.first_mut() {
            *first = SCRATCH_MARK;
        }
        let inputs = Inputs::new(&graph, FIRST_CAPACITY * places);
        Point {
            graph,
            point,
            sets,
            next: 0,
            needed: u32::MAX,
            executed: 0,
            arrived: vec![0; FIRST_CAPACITY],
            inputs,
            places,
            scratch,
            finished: None,
        }
    }

    /// Makes the point ready for a run, before any point begins it.
    #[entry]
    fn prepare(&mut self, iterations: u64) {
        self.graph.iterations = iterations;
        self.next = 0;
        self.needed = u32::MAX;
        self.executed = 0;
        self.arrived.fill(0);
    }

    /// Begins the run; the reduction of the tasks that were executed goes to `finished`.
    #[entry]
    fn begin(&mut self, cx: &Cx<Self>, finished: Callback<u64>) {
        self.finished = Some(finished);
        self.needed = self.inputs_of(0);
        self.advance(cx);
    }

    /// Takes an input of the usual size: the one that is listed at `place`, of the task at `step`.
    #[entry]
    fn input(&mut self, cx: &Cx<Self>, pair: Pair, step: u32, place: u32) {
        let at = self.arrive(step, place);
        if let Inputs::One(inputs) = &mut self.inputs {
            inputs[at] = [pair];
        }
        self.advance_if_ready(cx);
    }

    /// Takes an input of another size.
    #[entry]
    fn large_input(&mut self, cx: &Cx<Self>, pairs: Many, step: u32, place: u32) {
        let at = self.arrive(step, place);
        if let Inputs::Many(inputs) = &mut self.inputs {
            inputs[at] = pairs;
        }
        self.advance_if_ready(cx);
    }
}

impl Point {
    /// Counts an input; returns its place in the ring.
    fn arrive(&mut self, step: u32, place: u32) -> usize {
        let step = step as usize;
        if step - self.next >= self.arrived.len() {
            self.grow(step);
        }
        let row = step & (self.arrived.len() - 1);
        self.arrived[row] += 1;
        row * self.places + place as usize
    }

    fn advance_if_ready(&mut self, cx: &Cx<Self>) {
        if self.arrived[self.next & (self.arrived.len() - 1)] == self.needed {
            self.advance(cx);
        }
    }

    /// Runs the next tasks, as long as all their inputs are here.
    fn advance(&mut self, cx: &Cx<Self>) {
        while self.next < self.graph.steps {
            let row = self.next & (self.arrived.len() - 1);
            if self.arrived[row] != self.needed {
                return;
            }
            if self.graph.points(self.next).contains(&self.point) {
                self.execute(row);
                self.executed += 1;
            }
            self.arrived[row] = 0;
            self.next += 1;
            self.needed = self.inputs_of(self.next);
        }
        let finished = self.finished.take().expect("a run that has begun ends once");
        cx.contribute(self.executed, reduce::Sum, finished);
    }

    /// Runs the task of the next step and sends its output.
    fn execute(&mut self, row: usize) {
        let (graph, step, point) = (&self.graph, self.next, self.point);
        let inputs = row * self.places..(row + 1) * self.places;
        let (takers, dependents) = (graph.points(step + 1), &self.sets[graph.dset(step + 1)].dependents);
        let dependents = dependents.iter().filter(|to| takers.contains(&to.point));
        let next = step as u32 + 1;
        match &self.inputs {
            Inputs::One(all) => {
                let (inputs, mut output) = (&all[inputs], [[0; 2]]);
                graph.execute(step, point, |place| &inputs[place], &mut output, &self.scratch);
                let [pair] = output;
                dependents.for_each(|to| to.element.input(pair, next, to.place).send());
            }
            Inputs::Many(all) => {
                let inputs = &all[inputs];
                let mut output = vec![[0; 2]; graph.output_bytes / size_of::<Pair>()].into_boxed_slice();
                graph.execute(step, point, |place| &inputs[place], &mut output, &self.scratch);
                let pairs = Many::new(output);
                dependents.for_each(|to| to.element.large_input(pairs.clone(), next, to.place).send());
            }
        }
    }

    /// How many inputs the point's task of a step has.
    fn inputs_of(&self, step: usize) -> u32 {
        let graph = &self.graph;
        if step == 0 || !graph.points(step).contains(&self.point) {
            return 0;
        }
        if !graph.is_ragged() {
            return self.sets[graph.dset(step)].inputs;
        }
        let (before, mut count) = (graph.points_before(step), 0);
        graph.for_each_dep(graph.dset(step), self.point, |dep| count += u32::from(before.contains(&dep)));
        count
    }

    #[cold]
    fn grow(&mut self, step: usize) {
        let (places, old) = (self.places, self.arrived.len());
        let new = (step - self.next + 1).next_power_of_two();
        let mut arrived = vec![0; new];
        let mut inputs = Inputs::new(&self.graph, new * places);
        for step in self.next..self.next + old {
            let (from, to) = (step & (old - 1), step & (new - 1));
            arrived[to] = self.arrived[from];
            inputs.take_over(to * places, &mut self.inputs, from * places, places);
        }
        (self.arrived, self.inputs) = (arrived, inputs);
    }
}

impl Inputs {
    fn new(graph: &Graph, count: usize) -> Inputs {
        if graph.output_bytes == size_of::<Pair>() {
            Inputs::One(vec![[[-1; 2]]; count])
        } else {
            Inputs::Many(vec![Many::new(Box::default()); count])
        }
    }

    fn take_over(&mut self, to: usize, others: &mut Inputs, from: usize, count: usize) {
        match (self, others) {
            (Inputs::One(own), Inputs::One(others)) => {
                own[to..to + count].swap_with_slice(&mut others[from..from + count]);
            }
            (Inputs::Many(own), Inputs::Many(others)) => {
                own[to..to + count].swap_with_slice(&mut others[from..from + count]);
            }
            _ => unreachable!("the size of outputs stays"),
        }
    }
}

impl Set {
    /// Who depends on the point, and how many it depends on, at the steps of a set.
    fn new(cx: &Cx<Point>, graph: &Graph, dset: usize) -> Set {
        let point = cx.index();
        let mut dependents = Vec::new();
        graph.for_each_reverse_dep(dset, point, |to| {
            let (mut listed, mut place) = (0, None);
            graph.for_each_dep(dset, to, |dep| {
                if dep == point {
                    place = Some(listed);
                }
                listed += 1;
            });
            let place = place.expect("reverse dependencies are the mirror of dependencies");
            let element = cx.element(to).expect("there is an element for each point");
            dependents.push(Dependent { point: to, element, place });
        });
        Set { inputs: count_deps(graph, dset, point) as u32, dependents }
    }
}

fn count_deps(graph: &Graph, dset: usize, point: usize) -> usize {
    let mut count = 0;
    graph.for_each_dep(dset, point, |_| count += 1);
    count
}
