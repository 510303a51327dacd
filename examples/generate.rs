//! Eight dresses by the built-in model: `cargo run --release -p tessera --example generate`.

use tessera::{Device, Model, Request, Result};

fn main() -> Result<()> {
    let device = Device::parse("auto")?;
    let model = Model::builtin(&device)?; // or Model::open("runs/ar/model", &device)?
    let class = model.class("dress")?;
    let requests = (0..8).map(|i| Request::new(class, 1 + i));
    for picture in model.generate(requests, &model.sampling()) {
        let picture = picture?;
        let path = format!("out/{:05}.png", picture.index);
        picture.save_png(&path)?;
        println!("{path}: {}", picture.params.class_name);
    }
    Ok(())
}
