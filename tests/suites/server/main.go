// The server of gRPC's interop tests: grpc-go's own, which has no server id, with the id that pick_first_unary asks for.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
)

type server struct {
	testgrpc.TestServiceServer
	id string
}

// UnaryCall fills in server_id where it is asked for (SimpleRequest.fill_server_id).
func (s server) UnaryCall(ctx context.Context, in *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	out, err := s.TestServiceServer.UnaryCall(ctx, in)
	if err == nil && in.GetFillServerId() {
		out.ServerId = s.id
	}
	return out, err
}

func main() {
	useTLS := flag.Bool("use_tls", false, "serve TLS")
	certFile := flag.String("tls_cert_file", "", "certificate, PEM")
	keyFile := flag.String("tls_key_file", "", "private key, PEM")
	port := flag.Int("port", 10000, "port on the loopback address")
	flag.Parse()
	addr := fmt.Sprintf("127.0.0.1:%d", *port)
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	options := []grpc.ServerOption{orca.CallMetricsServerOption(nil)}
	if *useTLS {
		creds, err := credentials.NewServerTLSFromFile(*certFile, *keyFile)
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(creds))
	}
	grpcServer := grpc.NewServer(options...)
	test := interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: orca.NewServerMetricsRecorder()})
	testgrpc.RegisterTestServiceServer(grpcServer, server{test, addr})
	log.Fatal(grpcServer.Serve(listener))
}
