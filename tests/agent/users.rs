//! An etcd that asks for users and passwords.

use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use overlay_tests::etcd::Etcd;

/// The password of every user but root.
pub(crate) const PASSWORD: &str = "for-nobodys-eyes";

/// The agent's options for one.
pub(crate) fn options(user: &str) -> [String; 4] {
    ["--etcd-username", user, "--etcd-password", PASSWORD].map(str::to_owned)
}

/// Makes etcd refuse everybody but root and `user`, who may use our keys.
#[track_caller]
pub(crate) fn require(etcd: &Etcd, user: &str) {
    let enable = async |mut client: Client| {
        client.user_add("root", "root", None).await?;
        client.user_grant_role("root", "root").await?;
        client.role_add("overlay").await?;
        let permission = Permission::new(PermissionType::Readwrite, "/coreos.com/network/").with_prefix();
        client.role_grant_permission("overlay", permission).await?;
        add_with_role(&mut client, user).await?;
        client.auth_enable().await?;
        Ok(())
    };
    etcd.client(enable).unwrap();
}

/// Adds a user who may use our keys.
#[track_caller]
pub(crate) fn add(etcd: &Etcd, user: &str) {
    as_root(etcd, async |mut client| add_with_role(&mut client, user).await);
}

/// Deletes a user.
#[track_caller]
pub(crate) fn delete(etcd: &Etcd, user: &str) {
    as_root(etcd, async |mut client| Ok(client.user_delete(user).await.map(drop)?));
}

async fn add_with_role(client: &mut Client, user: &str) -> anyhow::Result<()> {
    client.user_add(user, PASSWORD, None).await?;
    client.user_grant_role(user, "overlay").await?;
    Ok(())
}

fn as_root(etcd: &Etcd, task: impl AsyncFnOnce(Client) -> anyhow::Result<()> + Send) {
    let (endpoint, options) = (etcd.endpoint(), ConnectOptions::new().with_user("root", "root"));
    etcd.netns().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { task(Client::connect([endpoint], Some(options)).await.unwrap()).await.unwrap() });
    });
}
