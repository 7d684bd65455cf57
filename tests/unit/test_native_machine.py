"""Who holds a port of ours, told before anything is started."""

import os
import socket

from native.kafka import free_ports
from native.machine import holder_of, taken
from native.stack import Port


def test_a_port_that_is_taken_names_itself_its_setting_and_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        (found,) = taken([Port("kafka", "KAFKA_PORT", "127.0.0.1", number)])
    told = str(found)
    assert f"port {number} (kafka)" in told
    assert "KAFKA_PORT" in told
    assert f"process {os.getpid()}" in told


def test_a_free_port_is_none_of_the_taken() -> None:
    (number,) = free_ports(1)
    assert taken([Port("kafka", "KAFKA_PORT", "127.0.0.1", number)]) == []


def test_what_a_closed_connection_leaves_behind_does_not_make_a_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)):
            accepted, _ = server.accept()
            accepted.close()  # first to close: its end waits in TIME_WAIT
    assert taken([Port("kafka", "KAFKA_PORT", "127.0.0.1", number)]) == []


def test_two_settings_that_name_one_port_are_told_apart_from_a_holder() -> None:
    (number,) = free_ports(1)
    (found,) = taken(
        [
            Port("ingestion", "INGESTION_PORT", "127.0.0.1", number),
            Port("processing", "PROCESSING_PORT", "127.0.0.1", number),
        ]
    )
    assert found.port.setting == "PROCESSING_PORT"
    assert "INGESTION_PORT" in str(found)


def test_a_host_that_is_not_ours_is_said_to_be_the_trouble() -> None:
    (number,) = free_ports(1)
    (found,) = taken([Port("ingestion", "INGESTION_PORT", "192.0.2.1", number)])  # TEST-NET-1, nobody's
    assert "192.0.2.1" in str(found)


def test_a_long_command_is_shortened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert len(holder_of(server.getsockname()[1])) < 130
