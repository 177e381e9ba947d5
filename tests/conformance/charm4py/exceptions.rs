//! charm4py tests/exceptions: what a method fails with reaches who waits. Left out: pool.py, of tasks that a pool of workers
//! runs, which there is not.

mod test {
    //! charm4py tests/exceptions/test.py: an error in a method of a group or an array, plain or a coroutine, reaches whoever
    //! awaits the call or the broadcast, and the chare serves on; results are gathered with the errors in their places.
    //! Errors that are returned and panics alike.

    use chare::prelude::*;

    const ROUNDS: usize = 5;

    #[derive(Debug, thiserror::Error, PartialEq)]
    #[error("name `test` is not defined")]
    struct NameError;

    #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Way {
        Returned,
        Panicked,
    }

    /// Fails with a `NameError`.
    fn raise(way: Way) -> Result<String> {
        match way {
            Way::Returned => Err(NameError.into()),
            Way::Panicked => panic!("{NameError}"),
        }
    }

    /// Whether this is the error that was raised in this way.
    fn is_raised(error: &CallError, way: Way) -> bool {
        match error {
            CallError::Panicked(panicked) => {
                way == Way::Panicked && panicked.message == NameError.to_string()
            }
            // From another process comes what it says only.
            other => {
                way == Way::Returned
                    && other.downcast_ref().is_none_or(|own: &NameError| *own == NameError)
                    && other.to_string().contains(&NameError.to_string())
            }
        }
    }

    macro_rules! tests {
        ($($name:ident: #[$chare:meta], $raise_in:ident, $all:ty, $one:ident;)*) => { $(
            struct $name;

            #[$chare]
            impl $name {
                fn new() -> Self {
                    $name
                }

                #[entry]
                fn bad(&self, cx: &Cx<Self>, way: Way) -> Result<String> {
                    if cx.index() % 2 != 0 { raise(way) } else { Ok("good".to_owned()) }
                }

                #[entry]
                fn all_bad(&self, way: Way) -> Result<String> {
                    raise(way)
                }

                #[entry]
                fn good(&self, cx: &Cx<Self>) -> usize {
                    cx.index()
                }

                #[entry]
                async fn bad_coroutine(&self, cx: &Cx<Self>, way: Way) -> Result<String> {
                    self.bad(cx, way)
                }

                #[entry]
                async fn all_bad_coroutine(this: This<Self>, way: Way) -> Result<String> {
                    this.with(|test| test.all_bad(way))
                }

                #[entry]
                async fn good_coroutine(&mut self, cx: &Cx<Self>) -> usize {
                    self.good(cx)
                }
            }

            async fn $raise_in(all: $all, count: usize) -> Result<()> {
                let bad_index = if count > 1 { count / 2 / 2 * 2 + 1 } else { 0 };
                for (round, way) in (0..ROUNDS).flat_map(|round| [(round, Way::Returned), (round, Way::Panicked)]) {
                    let one = all.$one(bad_index);
                    let (bad, all_bad, gathered) = if round % 2 == 0 {
                        assert_eq!(one.good().await?, bad_index);
                        (one.bad(way).await, all.all_bad(way).await, all.bad(way).gather_results().await?)
                    } else {
                        assert_eq!(one.good_coroutine().await?, bad_index);
                        (
                            one.bad_coroutine(way).await,
                            all.all_bad_coroutine(way).await,
                            all.bad_coroutine(way).gather_results().await?,
                        )
                    };
                    assert!(is_raised(&all_bad.expect_err("all fail"), way));
                    if count == 1 {
                        assert_eq!(bad?, "good");
                        continue;
                    }
                    assert!(is_raised(&bad.expect_err("it is at an odd index"), way));
                    assert!(is_raised(&all.bad(way).await.expect_err("half of them fail"), way));
                    assert!(is_raised(&all.bad_coroutine(way).await.expect_err("half of them fail"), way));
                    all.good().await?;
                    assert_eq!(all.good_coroutine().gather().await?, (0..count).collect::<Vec<_>>());
                    assert_eq!(gathered.len(), count);
                    for (index, outcome) in gathered.into_iter().enumerate() {
                        match outcome {
                            Ok(value) => assert_eq!((index % 2, &*value), (0, "good")),
                            Err(error) => assert!(index % 2 == 1 && is_raised(&error, way), "{index}: {error}"),
                        }
                    }
                }
                Ok(())
            }
        )* };
    }

    tests! {
        Member: #[chare(keep_after_panic)], raise_in_group, Group<Member>, on;
        Cell: #[chare(index = usize, keep_after_panic)], raise_in_array, Array<Cell>, at;
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn errors_reach_who_waits(rt: Runtime) -> Result<()> {
        let group = rt.group::<Member>().create(()).send();
        raise_in_group(group, rt.num_pes()).await?;
        let count = rt.num_pes() * 8;
        raise_in_array(rt.array::<Cell>(count).create(()).send(), count).await
    }
}
