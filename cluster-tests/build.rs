//! Compiles the clients the benchmark speaks with: the operator's key-value service and etcd's. No `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/proto/kv.proto");
    println!("cargo:rerun-if-changed=proto");
    for (file, directory) in [("kv.proto", "../proto/proto"), ("etcd.proto", "proto")] {
        let files = protox::compile([file], [directory])?;
        tonic_prost_build::configure().bytes(".").build_server(false).compile_fds(files)?;
    }
    Ok(())
}
