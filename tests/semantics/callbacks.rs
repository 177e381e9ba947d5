//! Callbacks: every place that a value can be delivered to, from reductions, calls or by hand.

use chare::prelude::*;

use super::{PES, run};

#[derive(Default)]
struct Listener {
    heard: Vec<u32>,
    called: u32,
}

#[chare]
impl Listener {
    fn new() -> Self {
        Listener::default()
    }

    #[entry]
    fn hear(&mut self, value: u32) {
        self.heard.push(value);
    }

    /// Takes no argument: for callbacks of `()`.
    #[entry]
    async fn be_called(this: This<Self>) {
        this.with(|listener| listener.called += 1);
    }

    #[entry]
    fn report(&self) -> (Vec<u32>, u32) {
        (self.heard.clone(), self.called)
    }

    /// Delivers from its own PE.
    #[entry]
    fn deliver(&self, value: u32, to: Callback<u32>) -> Result<()> {
        Ok(to.clone().deliver(value)?)
    }

    #[entry]
    fn double(&self, value: u32) -> Result<u32, String> {
        if value == 0 { Err("nothing to double".into()) } else { Ok(2 * value) }
    }

    /// A callback to itself, made from its context.
    #[entry]
    fn own_callback(&self, cx: &Cx<Self>) -> Callback<u32> {
        cx.callback(Listener::HEAR)
    }
}

/// The same in an array.
struct Row(Vec<u32>);

#[chare(index = (usize, usize))]
impl Row {
    fn new() -> Self {
        Row(Vec::new())
    }

    #[entry]
    fn hear(&mut self, value: u32) {
        self.0.push(value);
    }

    #[entry]
    fn heard(&self) -> Vec<u32> {
        self.0.clone()
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn every_kind_is_delivered_to_from_any_pe(rt: Runtime) -> Result<()> {
    let rows = rt.array::<Row>((2, 3)).create(()).await?;
    let group = rt.group::<Listener>().create(()).await?;
    let single = rt.single::<Listener>().create(()).await?;
    for (number, pe) in (0..).zip(rt.pes()) {
        let (promise, value) = rt.promise();
        group.on(pe).deliver(number, promise.into()).send();
        assert_eq!(value.await?, number);
        group.on(pe).deliver(number, single.callback(Listener::HEAR)).send();
        group.on(pe).deliver(number, rows.callback(Row::HEAR)).send();
        group.on(pe).deliver(number, rows.at((1, 2)).callback(Row::HEAR)).send();
        group.on(pe).deliver(number, group.callback(Listener::HEAR)).send();
        group.on(pe).deliver(number, group.on(0).own_callback().await?).send();
        group.on(pe).deliver(number, Callback::ignore()).send();
        rt.quiescence().await?;
    }
    let once: Vec<u32> = (0..rt.num_pes() as u32).collect();
    let twice: Vec<u32> = once.iter().flat_map(|&number| [number; 2]).collect();
    assert_eq!(single.report().await?.0, once);
    assert_eq!(rows.at((0, 0)).heard().await?, once);
    assert_eq!(rows.at((1, 2)).heard().await?, twice);
    assert_eq!(group.on(0).report().await?.0, twice);
    for pe in rt.pes().skip(1) {
        assert_eq!(group.on(pe).report().await?.0, once);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_entry_without_arguments_takes_the_news_alone(rt: Runtime) -> Result<()> {
    let single = rt.single::<Listener>().create(()).await?;
    single.hear(1).to(single.callback(Listener::BE_CALLED));
    rt.quiescence().await?;
    assert_eq!(single.report().await?, (vec![1], 1));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_call_sends_its_value_on(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).await?;
    let (first, last) = (group.on(0), group.on(rt.num_pes() - 1));
    last.double(4).to(first.callback(Listener::HEAR));
    let (promise, value) = rt.promise();
    last.double(5).to(promise);
    assert_eq!(value.await?, 10);
    rt.quiescence().await?;
    assert_eq!(first.report().await?.0, [8]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_error_of_a_call_breaks_the_promise_it_was_for(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).await?;
    let (promise, value) = rt.promise();
    group.on(rt.num_pes() - 1).double(0).to(promise);
    let error = value.await.unwrap_err();
    assert!(
        error.to_string().contains("Listener") && error.to_string().contains("nothing to double"),
        "{error}"
    );
    Ok(())
}

#[test]
fn the_error_of_a_call_to_an_entry_ends_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let single = rt.single::<Listener>().create(()).await?;
            single.double(0).to(single.callback(Listener::HEAR));
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("nothing to double"), "{report}");
    }
}

#[test]
fn a_callback_may_end_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let group = rt.group::<Listener>().create(()).await?;
            group.on(rt.num_pes() - 1).deliver(1, Callback::exit()).send();
            rt.promise::<()>().1.await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 0, "{report}");
    }
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn what_can_be_awaited_can_call_back(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).await?;
    let last = group.on(rt.num_pes() - 1);
    let (done, all) = rt.promises(4);
    rt.sleep(std::time::Duration::from_millis(1)).to(&done);
    rt.quiescence().to(&done);
    group.be_called().to(&done);
    last.be_called().future().to(&done);
    all.await?;
    let (gathered, values) = rt.promise();
    group.double(3).gather().to(gathered);
    assert_eq!(values.await?, vec![6; rt.num_pes()]);
    rt.quiescence().to(last.callback(Listener::BE_CALLED));
    rt.quiescence().await?;
    assert_eq!(last.report().await?.1, 3);
    let (failed, error) = rt.promise();
    group.double(0).gather().to(failed);
    assert!(error.await.expect_err("nothing doubles 0").to_string().contains("nothing to double"));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_creation_is_had_at_once_and_awaited_later(rt: Runtime) -> Result<()> {
    let (rows, created) = rt.array::<Row>((2, 3)).create(()).start();
    let (group, group_created) = rt.group::<Listener>().create(()).start();
    group.on(0).deliver(5, rows.at((1, 2)).callback(Row::HEAR)).send();
    created.await?;
    let (done, told) = rt.promise();
    group_created.to(done);
    told.await?;
    rt.quiescence().await?;
    assert_eq!(rows.at((1, 2)).heard().await?, [5]);
    Ok(())
}

#[test]
fn a_callback_to_an_element_outside_names_its_index() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let rows = rt.array::<Row>((2, 3)).create(()).await?;
            rows.at((5, 5)).callback(Row::HEAR).deliver(1)?;
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("Row has no element [(5, 5)]"), "{report}");
    }
}

#[test]
fn one_value_too_many_is_told_to_its_sender_or_ends_the_program() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let group = rt.group::<Listener>().create(()).await?;
            let (promise, value) = rt.promise();
            let callback = Callback::from(&promise);
            callback.deliver(1)?;
            let error = callback.deliver(2).expect_err("it takes one value");
            assert_eq!((error.expected, error.into_value()), (1, 2));
            assert_eq!(value.await?, 1);
            group.on(rt.num_pes() - 1).double(4).to(promise);
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("one value more than the 1"), "{report}");
    }
}
