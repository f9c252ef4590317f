//! Compiles the operator's key-value service. No `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../../proto/proto/kv.proto");
    let files = protox::compile(["../../proto/proto/kv.proto"], ["../../proto/proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(false)
        .codec_path("crate::kv::codec::SmallCodec")
        .compile_fds(files)?;
    Ok(())
}
