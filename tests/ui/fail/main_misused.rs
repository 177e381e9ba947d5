mod a {
    #[chare::main]
    fn main() {}
}

mod b {
    #[chare::main(pes = 4)]
    async fn main() -> chare::Result<()> {
        Ok(())
    }
}

mod c {
    #[chare::main]
    async fn start() -> chare::Result<()> {
        Ok(())
    }
}

mod d {
    #[chare::main]
    async fn main(_rt: super::Runtime, _args: Vec<String>) -> chare::Result<()> {
        Ok(())
    }
}

mod e {
    #[chare::main]
    struct Main;
}

fn main() {}
