from ipaddress import ip_interface, ip_address
from tests.lab.kernel.conftest import *
from ipmp_agent.core.events import *
from ipmp_agent.core.actions import *
from ipmp_agent.core.reasons import Reason

A = ip_interface("198.18.0.10/32")
def test_all(lab, kernel):
    print(kernel.configure(node_group(addresses=(A,))))
    kernel.perform(MoveAddresses((Move(A,None,"nic0",Reason.ADDRESS_ADDED),)))
    wait_for(lambda: where(lab,A))
    kernel.perform(MoveAddresses((Move(A,"nic0","nic1",Reason.ADDRESS_ADDED),)), Announce("nic1",(A,)))
    assert where(lab,A)==["nic1"]
    lab.host.nic("nic0").unplug()
    print(kernel.await_event(LinkChanged))
    for p in ProbeProtocol.NEIGHBOR, ProbeProtocol.ICMP:
        for t in lab.peer(1).ipv6, "ff02::1":
            kernel.perform(SendProbe("nic1",Family.IPV6,ip_address(t),1,ProbeKind.DISCOVERY if t[0]=="f" else ProbeKind.DETECTION,p))
    kernel.perform(SendProbe("nic1",Family.IPV4,ip_address(lab.peer(1).ipv4),1,ProbeKind.DETECTION,ProbeProtocol.ARP))
    import time; time.sleep(1)
    print(kernel.events(ProbeAnswered))
    print(kernel.call(lambda k:(k.counters,k.memory(GROUP),k.findings(GROUP))))
    kernel.run(lambda k:k.withdraw(GROUP))
    assert not where(lab,A)
    print(kernel.heard)
