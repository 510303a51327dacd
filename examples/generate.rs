//! Eight sneakers by the built-in model: `cargo run --release -p tessera --example generate`, or
//! `… --example generate -- runs/ar/model`.

use tessera::{Device, Model, Request, Result, Source};

fn main() -> Result<()> {
    let device = Device::parse("auto")?;
    let model = std::env::args()
        .nth(1)
        .map_or(Source::builtin(), Source::new);
    let model = Model::open(model, &device)?;
    let class = model.class("sneaker")?;
    let requests = (0..8).map(|i| Request::new(class, 1 + i));
    for picture in model.generate(requests, &model.sampling()) {
        let picture = picture?;
        picture.save_png(format!("out/{:05}.png", picture.index))?;
        println!(
            "out/{:05}.png: {}",
            picture.index, picture.params.class_name
        );
    }
    Ok(())
}
