//! Compiles the peer service as `quilt-raft` does, and puts the simulation's host and network in the product's place.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rustc-check-cfg=cfg(simulated)");
    println!("cargo::rustc-cfg=simulated");
    println!("cargo:rerun-if-changed=../../../proto/proto");
    let files = protox::compile(["../../../proto/proto/peer.proto"], ["../../../proto/proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".quilt.state.v1", "::quilt_proto::state")
        .compile_fds(files)?;
    Ok(())
}
