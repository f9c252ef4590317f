//! Compiles the peer service. No `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Set by the package that compiles these sources for the simulation; never by this one.
    println!("cargo::rustc-check-cfg=cfg(simulated)");
    // It names words of the state machine, which lie beside it.
    println!("cargo:rerun-if-changed=../proto/proto");
    let files = protox::compile(["../proto/proto/peer.proto"], ["../proto/proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".quilt.state.v1", "::quilt_proto::state")
        .compile_fds(files)?;
    Ok(())
}
