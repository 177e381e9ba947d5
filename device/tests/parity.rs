//! What a parity test finds, and what it says.

use chare_device::parity::{Case, Outcome, Random, Sample, Value};
use chare_device::{
    DeviceSpec, Devices, Each, Grid, HostMode, In, InOut, Kernel, Launch, Maybe, Out, Zeroed,
};

const ADD: Kernel<(u32, In<u32>, InOut<u32>)> =
    Kernel::new("add", |_: &Launch, (a, x, y): (u32, &[u32], &mut [u32])| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = y.wrapping_add(a).wrapping_add(*x));
    });

fn outcome(case: &Case, seed: u64) -> Outcome {
    let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline).expect("the host is there");
    case.run(&devices.get(0).account("parity"), seed).expect("it runs")
}

#[test]
fn one_line_is_a_test() {
    Case::sized(&ADD, 0..100).check();
}

#[test]
fn every_kind_of_parameter_can_be_given() {
    type Parameters = (Each<Maybe<In<f32>>, 2>, Zeroed<u64>, Each<Out<i8>, 2>, [u32; 3], f64);
    const MIX: Kernel<Parameters> = Kernel::new("mix", mix);
    type Views<'v> = ([Option<&'v [f32]>; 2], &'v mut [u64], [&'v mut [i8]; 2], [u32; 3], f64);
    fn mix(launch: &Launch, ([a, b], counts, [low, high], dims, x): Views<'_>) {
        counts.iter_mut().for_each(|count| *count += a.map_or(0, <[f32]>::len) as u64);
        low.fill(b.map_or(-1, |b| b[0] as i8));
        high.fill((x * 100.0) as i8 ^ dims[0] as i8 ^ launch.grid().y as i8);
    }
    Case::sized(&MIX, 1..9).check();
    let case = Case::of(&MIX, |random| {
        let given = ([None, Some(vec![7.0])], 2, [1, 2], [1, 2, 3], random.value::<f64>());
        (Grid::new(4, 5, 6), given)
    });
    let found = outcome(&case, 3);
    let x: f64 = Random::new(3).value();
    let high = (x * 100.0) as i8 ^ 1 ^ 5;
    let expected = Outcome::default().add_values(&[0_u64; 2]).add_values(&[7_i8]).add_values(&[high; 2]);
    assert_eq!(case.difference(&expected, &found), None);
    case.check();
}

#[test]
#[should_panic(expected = "treacherous on host")]
fn a_difference_is_told() {
    const TREACHEROUS: Kernel<(Out<f32>,)> =
        Kernel::new("treacherous", |_: &Launch, (out,): (&mut [f32],)| {
            // A worker is another thread than the test's.
            let is_ours = std::thread::current().name() == Some("a_difference_is_told");
            out.fill(if is_ours { 1.0 } else { 1.1 });
        });
    Case::sized(&TREACHEROUS, 1..9).within(0.05).check();
}

#[test]
fn tolerances_are_kept() {
    let case = || Case::sized(&ADD, 0..9);
    let of = |x: f32| Outcome::default().add_values(&[1.0, x]);
    assert!(case().difference(&of(2.0), &of(2.0)).is_none());
    let found = case().difference(&of(2.0), &of(2.5)).expect("they differ");
    assert_eq!(
        (found.buffer, found.number, found.values),
        (0, 1, (Some(Value::Real(2.0)), Some(Value::Real(2.5))))
    );
    assert!(case().within(0.2).difference(&of(2.0), &of(2.5)).is_none());
    assert!(case().within(0.2).difference(&of(2.0), &of(2.6)).is_some());
    assert!(case().within_absolute(0.5).difference(&of(-0.1), &of(0.1)).is_none());
    assert!(case().within(9.0).difference(&of(f32::NAN), &of(1.0)).is_some());
    assert!(case().difference(&of(f32::NAN), &of(f32::NAN)).is_none());
    // Integers are exact, and lengths are compared.
    let integers = |x: u64| Outcome::default().add_values(&[x]);
    assert!(case().within(1.0).difference(&integers(u64::MAX), &integers(u64::MAX - 1)).is_some());
    let shorter = Outcome::default().add_values(&[1.0_f32]);
    let found = case().within(1.0).difference(&shorter, &of(2.0)).expect("they differ");
    assert_eq!((found.number, found.values.0), (1, None));
}

#[test]
fn seeds_make_different_inputs() {
    let case = Case::sized(&ADD, 0..1000);
    let all: Vec<_> = (0..20).map(|seed| outcome(&case, seed)).collect();
    assert!(all.iter().skip(1).all(|other| *other != all[0]) && all[7] == outcome(&case, 7));
    let mut random = Random::new(1);
    let reals: Vec<f64> = random.values(1000);
    assert!(reals.iter().all(|x| (-1.0..1.0).contains(x)) && reals.iter().any(|x| *x < -0.9));
    let mut values = Vec::new();
    [[1_i8, -2], [3, 4]].list(&mut values);
    assert_eq!(values, [1, -2, 3, 4].map(Value::Integer));
}
