"""What leaves the machine says nothing of whose it is, and still says what went wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floatllm_build.scrub import Scrubber, names_a_secret, secrets_of
from floatllm_build.symbols import Symbols

HOME = "/home/ada-lovelace"
ENVIRONMENT = {
    "USER": "ada-lovelace",
    "HOSTNAME": "difference-engine.example.org",
    "HF_TOKEN": "hf_0123456789abcdef",
    "PIP_INDEX_URL": "https://ada:s3cr%40et@packages.example.org/simple",
    "https_proxy": "joe:open-sesame@10.1.2.3:3128",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    "DEBUG_AUTH": "1",
    "X_PASSWORD": "on",
}


def scrubber(environment: Mapping[str, str] = ENVIRONMENT) -> Scrubber:
    return Scrubber.of_this_user(environment, Symbols({"{home}": HOME}, user="ada-lovelace"))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Looking in indexes: https://ada:s3cr%40et@packages.example.org/simple", "s3cr"),
        ("password s3cr@et was refused", "s3cr@et"),
        ("GET http://packages.example.org/a?X-Signature=0123", "0123"),
        ("GET http://packages.example.org/t0ken/simple", "t0ken"),
        ("git clone https://x-oauth:12ab@github.com/ggml-org/ggml", "12ab"),
        ("ssh://git@code.example.org/acme/secret-project.git", "acme"),
        ("-DHF_TOKEN=hf_zzz -DB=1", "hf_zzz"),
        ("-DHF_TOKEN:STRING=hf_zzz", "hf_zzz"),
        ('{"api_key": "a b c", "x": 1}', "a b c"),
        ("PASSWORD='a b c' make", "a b c"),
        ("client --password hunter2 go", "hunter2"),
        ("Authorization: Basic YWRhOnB3", "YWRhOnB3"),
        ("authorization: Bearer abc.def-ghi", "abc.def"),
        ("curl -H 'X: bearer abcdefghij'", "abcdefghij"),
        ("token is hf_AbCdEfGhIjKl", "AbCdEf"),
        ("ghp_0123456789abcdefABCDEF was refused", "ghp_0123"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIA"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "eyJ"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabcd\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("the value wJalrXUtnFEMI somewhere", "wJalr"),
        ("proxy answered open-sesame", "open-sesame"),
        ("connect to 10.1.2.3:3128 failed", "10.1.2.3"),
        ("Could not connect to 192.168.17.5.", "192.168"),
        ("connecting...192.168.17.5", "192.168"),
        ("the pool 10.1.2.3-10.1.2.9 is empty", "10.1.2"),
        ("node-10.1.2.3-a", "10.1.2"),
        ("connect to [fd00:1234::17]:8080 failed", "1234"),
        ("no route to fd12:3456:789a::1.", "3456"),
        ("addr:2001:DB8::8a2e:370:7334: refused", "370"),
        ("2001:db8:0:1:2:3:4:5:443 refused", "db8"),
        ("fe80::1ff:fe23:4567:890a%eth0", "4567"),
        ("::ffff:192.168.17.5, ::ffff:c0a8:1105", "192.168"),
        ("::ffff:192.168.17.5, ::ffff:c0a8:1105", "1105"),
        ("mail to ada.l@example.co.uk please", "ada.l"),
        (f"{HOME}/project/x.c:1: error", "ada-lovelace"),
        ("owner ada-lovelace, group users", "ada-lovelace"),
        ("on difference-engine: failed", "difference-engine"),
        ("on DIFFERENCE-ENGINE.example.org: failed", "DIFFERENCE"),
        ("/home/someone-else/x", "someone-else"),
        ("HTTPSConnectionPool(host='nexus.corp.local', port=443)", "nexus"),
        ("HTTPSConnection(host='nexus.acme.com', port=443): Failed to resolve 'nexus.acme.com'", "nexus"),
        ("Could not resolve host: nexus.acme.com", "nexus"),
        ("trusted-host = nexus.acme.com", "nexus"),
        ("pip install --trusted-host nexus.acme.com x", "nexus"),
        ("PIP_PROXY=nexus.acme.com:3128", "nexus"),
        ('"index-url": "nexus.acme.com"', "nexus"),
        ("there is no network, or it does not lead to nexus.acme.com (timed out)", "nexus"),
        ("GET https://nexus.acme.com/simple failed; nexus.acme.com is not trusted", "nexus"),
        ("ping nexus.corp.local failed", "nexus"),
        ("the repository at packages.example.org is not trusted", "packages.example"),
    ],
)
def test_nothing_of_it_is_left(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in scrubber().text(text)


@pytest.mark.parametrize(
    "text",
    [
        "src/tokenizer.cpp:12:3: error: expected unqualified-id before token",
        "std::token::kind x; token::y",
        "undefined reference to `memcpy@GLIBC_2.14', memcpy@@GLIBC_2.17",
        "driver 31.0.15.5222, CUDA 13.0.88, gcc 12.2.0, 127.0.0.1",
        "at 12:30:01, 2026:11:30 12:30:01; ::1 and [::]:8080; 0000:3b:00.0",
        "std::vector<a::b> fd00::value; 2001::f32_t; dead::beef; x.cpp:2001:15: error",
        "nvidia_cublas-13.1.0.3-py3-none-any.whl, x-1.2.3.4.tar.gz, 1.2.3.4.5, v1.2.3.4, 0x10.1.2.3",
        "git clone --depth 1 https://github.com/ggml-org/ggml ggml-source",
        "[FloatLLM] Mapped token_embd.weight | Shape: [128, 320, 1, 1] | Target hardware: CPU",
        "collect2: error: ld returned 1 exit status",
        "on 1 of 2 CPUs",
        "see https://github.com/ggml-org/ggml and github.com, or https://cmake.org/",
        "index-url in /etc/pip.conf; share/.local/bin, pip._internal.cli, settings.local.json",
        "no proxy: it was refused; the proxy is set; HTTPConnectionPool(host={address}, port=443)",
    ],
)
def test_what_matters_stays(text: str) -> None:
    assert scrubber().text(text) == text


def test_hosts_of_settings_are_hidden_wherever_they_stand(tmp_path: Path) -> None:
    """Of variables and of files, one of which is broken."""
    uv, pip, own = tmp_path / "uv.toml", tmp_path / "pip.conf", tmp_path / "venv" / "pip.conf"
    own.parent.mkdir()
    uv.write_text(
        'allow-insecure-host = ["u1.acme.com:8443"]\n[pip]\nextra-index-url = ["https://u2.acme.com/simple"]\n'
        '[[index]]\nname = "a"\nurl = "https://u3.acme.com"\nexplicit = true\n'
    )
    pip.write_text(
        "[global]\nindex-url = https://me:pw@p1.acme.com:8443/simple\n"
        "[install]\ntrusted-host = p2 p3.acme.com\n"
    )
    own.write_text("[global]\nfind-links = https://p4.acme.com/wheels\n")
    variables = {
        "UV_CONFIG_FILE": str(uv),
        "PIP_CONFIG_FILE": str(pip),
        "VIRTUAL_ENV": str(own.parent),
        "PIP_EXTRA_INDEX_URL": "https://v1.acme.com/simple https://[fd00::1]/simple",
        "UV_DEFAULT_INDEX": "acme=https://v2.acme.com",
        "https_proxy": "joe:open-sesame@v3.acme.com:3128",
        "ALL_PROXY": "socks5://squid-v4:1080/",
        "HTTP_PROXY": "http://proxy:3128",
        "no_proxy": "localhost,127.0.0.1,.internal,*.v5.acme.com",
    }
    hosts = [
        *(f"{name}.acme.com" for name in ("u1", "u2", "u3", "p1", "p3", "p4", "v1", "v2", "v3", "deep.v5"))
    ]
    hosts += ["squid-v4", "fd00::1", "P1.ACME.COM"]
    text = "".join(f"cannot reach {host}, port 443\n" for host in hosts)
    hidden = "cannot reach {address}, port 443\n" * len(hosts)
    scrub = scrubber(variables)
    assert scrub.text(text) == hidden
    assert scrub.seen_json([text]) == [hidden]
    left = "the proxy of localhost is internal"
    assert scrub.text(left) == left
    pip.write_text("nonsense")
    uv.write_text("nonsense")
    assert scrubber(variables).text("v1.acme.com p4.acme.com") == "{address} {address}"


def test_in_json_names_and_values_are_seen_alike() -> None:
    told = {"HF_TOKEN": "short", "list": [f"{HOME}/a", 1, None, True], HOME: {"password": "x"}, "key": "ok"}
    assert scrubber().json(told) == {
        "HF_TOKEN": "{secret}",
        "list": ["{home}/a", 1, None, True],
        "{home}": {"password": "{secret}"},
        "key": "ok",
    }


def test_what_a_door_has_hidden_keeps_its_symbols_and_versions() -> None:
    seen = {"environ": {"CXX": "{home}/bin/c++"}, "out": "31.0.15.52 {uuid-1}", "arg": "-DX_TOKEN=zzz"}
    assert scrubber().seen_json(seen) == {**seen, "arg": "-DX_TOKEN={secret}"}


def test_values_that_mean_nothing_are_not_looked_for() -> None:
    """Else each 1 and each `on` of a log would go."""
    assert secrets_of({"DEBUG_AUTH": "1", "X_PASSWORD": "on", "SOME_KEY": "true", "EMPTY_TOKEN": ""}) == set()


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "GH_PAT_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "X_API_KEY"]
)
def test_a_variable_is_known_by_its_name(name: str) -> None:
    assert names_a_secret(name)
    assert not names_a_secret("CMAKE_ARGS")


@given(st.text(max_size=300))
def test_it_takes_every_text_and_a_second_time_changes_nothing_of_what_is_hidden(text: str) -> None:
    once = scrubber().without_secrets(text)
    assert scrubber().without_secrets(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "-token",
        "x@y.",
        "a.b",
        "--a",
        "password:",
        "https://",
        "1.2.3.",
        "bearer ",
        "eyJa",
        '"',
        "fd00:",
        "::",
        "10.",
        "10.1.2.3-",
    ],
)
def test_its_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    """Seconds for what would take hours with one careless pattern."""
    started = time.process_time()
    scrubber().text(piece * (200_000 // len(piece)) + "=")
    assert time.process_time() - started < 10
