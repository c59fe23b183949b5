//! What a booting machine downloads.

use ring::digest::{SHA256, digest};

use crate::support::{Stand, Wish};

#[tokio::test]
async fn a_machine_downloads_its_agent_and_can_check_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let program: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    std::fs::write(&path, &program).unwrap();
    let stand = Stand::start_with(Wish { agent: Some(path), ..Wish::default() }).await;
    let sha256 = hex::encode(digest(&SHA256, &program));
    let url = format!("{}/agent/v1/download/amd64", stand.url);

    let response = stand.http.get(&url).send().await.unwrap();
    assert_eq!(response.headers()["x-stagely-sha256"], sha256.as_str());
    let etag = response.headers()["etag"].clone();
    assert_eq!(response.content_length(), Some(3_000_000));
    assert_eq!(response.bytes().await.unwrap(), program);
    assert_eq!(stand.http.get(&url).header("if-none-match", etag).send().await.unwrap().status(), 304);
    let checksum = stand.http.get(format!("{url}.sha256")).send().await.unwrap().text().await.unwrap();
    assert_eq!(checksum, format!("{sha256}  stagely-agent-amd64\n"));
    for missing in ["arm64", "sparc", "amd64.sha512", "..%2f..%2fetc%2fpasswd"] {
        let url = format!("{}/agent/v1/download/{missing}", stand.url);
        assert_eq!(stand.http.get(url).send().await.unwrap().status(), 404, "{missing}");
    }
    stand.stop().await;
}
