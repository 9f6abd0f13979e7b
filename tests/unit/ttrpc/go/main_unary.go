//go:build unary

// The client of ttrpc 1.1, which containerd 1.6 has: unary calls only.
//
//	interop client SOCKET
package main

import (
	"net"
	"os"

	"github.com/containerd/ttrpc"
)

func main() {
	conn, err := net.Dial("unix", os.Args[2])
	fail(err)
	client := ttrpc.NewClient(conn)
	defer client.Close()
	unaryCalls(client)
	concurrentCalls(client)
}

// stringValue is google.protobuf.StringValue for the protobuf library of that time.
type stringValue struct {
	Value string `protobuf:"bytes,1,opt,name=value,proto3"`
}

func (m *stringValue) Reset()         { *m = stringValue{} }
func (m *stringValue) String() string { return m.Value }
func (*stringValue) ProtoMessage()    {}

func text(s string) *stringValue { return &stringValue{Value: s} }
