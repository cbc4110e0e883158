#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <ctime>
#include "../src/conv.h"
using namespace clue; using namespace clue::HWY_NAMESPACE;
static double now(){ timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID,&t); return t.tv_sec+t.tv_nsec*1e-9;}
static std::vector<float> rnd(size_t n){ std::vector<float> v(n+64); for(auto&x:v) x=rand()/float(RAND_MAX)-.5f; return v;}
int main(){
  const int N=32;
  struct {int c,o,hw,s;} L[]={{16,16,32,1},{32,32,16,1},{64,64,8,1},{16,32,32,2},{32,64,16,2},{3,16,32,1},{64,64,56,1}};
  for(auto&l:L){
    int ho=(l.hw+2-3)/l.s+1; int n = l.hw>32?4:N;
    Conv s{n,l.hw,l.hw,l.c,l.o,ho,ho,3,3,l.s,l.s,1,1,1,1,1};
    auto x=rnd(n*s.image_in()), w=rnd(size_t(l.o)*l.c*9), y=rnd(n*s.image_out()), gx=rnd(n*s.image_in());
    Padded p=forward_source(s), q=backward_source(s);
    std::vector<float> sx(p.floats()+64), sg(q.floats()+64), pf(packed_floats(9,l.c,l.o)), pb(backward_packed_floats(s)), sums(weight_sums_floats(s)), gw(w.size());
    ptrdiff_t off[64]; forward_offsets(s,p,off);
    double best[4]={9,9,9,9};
    for(int r=0;r<15;++r){
      double t0=now();
      pack_forward(s,w.data(),pf.data());
      for(int i=0;i<n;++i){ place(p,&x[i*s.image_in()],s.h,s.w,sx.data(),Plain()); forward_image(s,p,off,sx.data(),pf.data(),&y[i*s.image_out()]); }
      double t1=now();
      pack_backward(s,w.data(),pb.data());
      for(int i=0;i<n;++i){ place(q,&y[i*s.image_out()],s.ho,s.wo,sg.data(),Plain()); backward_image(s,q,sg.data(),pb.data(),&gx[i*s.image_in()]); }
      double t2=now();
      std::fill(sums.begin(),sums.end(),0.f);
      for(int i=0;i<n;++i){ place(p,&x[i*s.image_in()],s.h,s.w,sx.data(),Plain()); weight_image(s,p,sx.data(),&y[i*s.image_out()],ptrdiff_t(s.wo)*s.o,sums.data()); }
      unpack_weight(s,sums.data(),1,0,gw.data());
      double t3=now();
      best[0]=std::min(best[0],t1-t0);best[1]=std::min(best[1],t2-t1);best[2]=std::min(best[2],t3-t2);
    }
    double gf=2.0*n*ho*ho*l.o*l.c*9/1e9;
    printf("c%d o%d hw%d s%d: fwd %.2f ms %.1f  gx %.2f ms %.1f  gw %.2f ms %.1f GFLOP/s\n",l.c,l.o,l.hw,l.s,best[0]*1e3,gf/best[0],best[1]*1e3,gf/best[1],best[2]*1e3,gf/best[2]);
  }
}
