#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <cmath>
#include <ctime>
#include <type_traits>
#include "../src/winograd.h"
using namespace clue; using namespace clue::HWY_NAMESPACE;
static double now(){ timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID,&t); return t.tv_sec+t.tv_nsec*1e-9;}
static std::vector<float> rnd(size_t n){ std::vector<float> v(n+64); for(auto&x:v) x=rand()/float(RAND_MAX)-.5f; return v;}
static double diff(const std::vector<float>&a,const std::vector<float>&b,size_t n){double m=0,s=0;for(size_t i=0;i<n;++i){m=std::max(m,(double)std::fabs(a[i]-b[i]));s=std::max(s,(double)std::fabs(a[i]));}return m/s;}
int main(){
  const int N=32;
  struct {int c,o,hw;} L[]={{16,16,32},{32,32,16},{64,64,8},{64,64,56},{128,128,28},{256,256,14},{512,512,7}};
  for(auto&l:L){
    int n=l.hw>16||l.c>64?4:N; if(l.hw==32)n=N;
    Conv s{n,l.hw,l.hw,l.c,l.o,l.hw,l.hw,3,3,1,1,1,1,1,1,1};
    auto x=rnd(n*s.image_in()), w=rnd(size_t(l.o)*l.c*9), y=rnd(n*s.image_out()), gx=y, y2=y,g=rnd(n*s.image_out());
    Tiles T=tiles_of(l.hw,l.hw,l.c,l.o); Padded p=forward_source(s), tp=tiled(p,T); int nb=T.images(); if(nb>n)nb=n;
    std::vector<float> sx(tp.floats()*nb+64), sg(tp.floats()*nb+64), pf(packed_floats(9,l.c,l.o)), pw(16*packed_floats(1,l.c,l.o)), work(winograd_floats(T,l.c,l.o)),sums(weight_sums_floats(s)), wsums(16*l.c*padded(l.o)), gw(w.size()), gw2(w.size());
    ptrdiff_t off[64]; forward_offsets(s,p,off);
    double best[4]={9,9,9,9};
    for(int r=0;r<12;++r){
      double t0=now();
      pack_forward(s,w.data(),pf.data());
      for(int i=0;i<n;++i){ place(p,&x[i*s.image_in()],s.h,s.w,sx.data(),Plain()); forward_image(s,p,off,sx.data(),pf.data(),&y[i*s.image_out()]); }
      double t1=now();
      std::fill(sums.begin(),sums.end(),0.f);
      for(int i=0;i<n;++i){ place(p,&x[i*s.image_in()],s.h,s.w,sx.data(),Plain()); weight_image(s,p,sx.data(),&g[i*s.image_out()],ptrdiff_t(s.wo)*s.o,sums.data()); }
      unpack_weight(s,sums.data(),1,0,gw.data());
      std::fill(sx.begin(),sx.end(),0.f);
      double t2=now();
      pack_winograd(l.c,l.o,pw.data(),[&](int i,int j,int t){return w[(size_t(j)*l.c+i)*9+t];});
      double tp1=now();
      for(int i=0;i<n;i+=nb){ for(int b=0;b<nb;++b) place(tp,&x[(i+b)*s.image_in()],s.h,s.w,sx.data()+b*tp.floats(),Plain()); winograd_images(T,tp,sx.data(),nb,pw.data(),l.o,&y2[i*s.image_out()],work.data()); }
      double t3=now();
      std::fill(wsums.begin(),wsums.end(),0.f);
      for(int i=0;i<n;i+=nb){ for(int b=0;b<nb;++b) place(tp,&x[(i+b)*s.image_in()],s.h,s.w,sx.data()+b*tp.floats(),Plain()); winograd_weight(T,tp,sx.data(),nb,&g[i*s.image_out()],ptrdiff_t(s.wo)*s.o,s.image_out(),l.o,wsums.data(),work.data()); }
      double tu=now();
      unpack_winograd(l.c,l.o,wsums.data(),1,0,gw2.data());
      double t4=now();
      if(r==11) printf("pack %.2f unpack %.2f ms; ",(tp1-t2)*1e3,(t4-tu)*1e3);
      best[0]=std::min(best[0],t1-t0);best[1]=std::min(best[1],t2-t1);best[2]=std::min(best[2],t3-t2);best[3]=std::min(best[3],t4-t3);
      std::fill(sx.begin(),sx.end(),0.f);
    }
    printf("c%d hw%d: direct fwd %.2f gw %.2f | wino fwd %.2f (x%.2f err %.1e) gw %.2f (x%.2f err %.1e)\n",l.c,l.hw,best[0]*1e3,best[1]*1e3,best[2]*1e3,best[0]/best[2],diff(y,y2,n*s.image_out()),best[3]*1e3,best[1]/best[3],diff(gw,gw2,gw.size()-64));
  }
}
